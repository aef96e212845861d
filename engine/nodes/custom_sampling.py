"""Sampling in parts: noise, a guider, a sampler and a list of sigmas put together."""

from __future__ import annotations

from typing import Annotated, Any

import torch

from engine.families.base import Model
from engine.graph.node import CONDITIONING, LATENT, MODEL, In, NodeContext, Out, node
from engine.nodes.sampling import Cfg, Seed, shown
from engine.nodes.sigmas import SIGMAS, as_list
from engine.sampling.guiders import Guider, cfg_guider
from engine.sampling.model import schedule_of
from engine.sampling.noise import Noise
from engine.sampling.run import sample
from engine.sampling.samplers.table import Sampler

SAMPLED = [Out("LATENT", "output"), Out("LATENT", "denoised_output")]


@node("RandomNoise", title_zh="随机噪声", category="sampling/custom_sampling/noise", outputs=[Out("NOISE")])
def random_noise(ctx: NodeContext, noise_seed: Seed) -> tuple[Noise]:
    return (Noise(noise_seed),)


@node("DisableNoise", title_zh="禁用噪声", category="sampling/custom_sampling/noise", outputs=[Out("NOISE")])
def disable_noise(ctx: NodeContext) -> tuple[Noise]:
    """A run starts with the latent as it is."""
    return (Noise(none=True),)


@node("SamplerCustom", title_zh="自定义采样器", category="sampling/custom_sampling", outputs=SAMPLED)
def sampler_custom(
    ctx: NodeContext,
    model: MODEL,
    add_noise: Annotated[bool, In("BOOLEAN", default=True)],
    noise_seed: Seed,
    cfg: Cfg,
    positive: CONDITIONING,
    negative: CONDITIONING,
    sampler: Annotated[Sampler, In("SAMPLER")],
    sigmas: SIGMAS,
    latent_image: LATENT,
) -> tuple[dict[str, Any], dict[str, Any]]:
    noise = Noise(noise_seed, none=not add_noise)
    return _sampled(ctx, noise, cfg_guider(model, positive, negative, cfg), sampler, sigmas, latent_image)


@node("SamplerCustomAdvanced", title_zh="自定义采样器（高级）", category="sampling/custom_sampling", outputs=SAMPLED)
def sampler_custom_advanced(
    ctx: NodeContext,
    noise: Annotated[Noise, In("NOISE")],
    guider: Annotated[Guider, In("GUIDER")],
    sampler: Annotated[Sampler, In("SAMPLER")],
    sigmas: SIGMAS,
    latent_image: LATENT,
) -> tuple[dict[str, Any], dict[str, Any]]:
    return _sampled(ctx, noise, guider, sampler, sigmas, latent_image)


def _sampled(
    ctx: NodeContext, noise: Noise, guider: Guider, sampler: Sampler, sigmas: Any, latent_image: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where the run ended, and what the model took for the clean latent at its last step."""
    out = sample(
        ctx.models,
        guider,
        sampler=sampler,
        sigmas=as_list(sigmas),
        noise=noise,
        latent=latent_image["samples"],
        batch_index=latent_image.get("batch_index"),
        noise_mask=latent_image.get("noise_mask"),
        callback=shown(ctx, guider.model),
        interrupt_check=ctx.interrupt_check,
    )
    return {**latent_image, "samples": out.latent}, {**latent_image, "samples": out.denoised}


@node("AddNoise", title_zh="添加噪声", category="_for_testing/custom_sampling/noise", outputs=[Out("LATENT")])
def add_noise(
    ctx: NodeContext, model: MODEL, noise: Annotated[Noise, In("NOISE")], sigmas: SIGMAS, latent_image: LATENT
) -> tuple[dict[str, Any]]:
    """A latent with the noise of the first sigma, or of the difference between the first and the last of several."""
    levels = as_list(sigmas)
    if not levels:
        return (latent_image,)
    given: Model = model
    latent = latent_image["samples"].float()
    drawn = noise.draw(latent, latent_image.get("batch_index"))
    scaled = given.latent.scaled(latent) if latent.any() else latent
    sigma = abs(levels[0] - levels[-1]) if len(levels) > 1 else levels[0]
    noisy = given.latent.unscaled(schedule_of(given).add_noise(scaled, drawn, sigma))
    return ({**latent_image, "samples": torch.nan_to_num(noisy, nan=0.0, posinf=0.0, neginf=0.0)},)
