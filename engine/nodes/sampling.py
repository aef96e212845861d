"""KSampler and KSamplerAdvanced."""

from __future__ import annotations

from typing import Annotated, Any

from engine.families.base import Model
from engine.graph.node import CONDITIONING, LATENT, MODEL, In, NodeContext, Out, node
from engine.sampling.denoiser import Callback, Step
from engine.sampling.guiders import cfg_guider
from engine.sampling.model import schedule_of
from engine.sampling.noise import Noise
from engine.sampling.preview import previewer
from engine.sampling.run import sample
from engine.sampling.samplers.table import SAMPLERS
from engine.sampling.schedulers import SCHEDULERS, sigmas_for

Seed = Annotated[int, In("INT", default=0, min=0, max=2**64 - 1, control_after_generate=True)]
Steps = Annotated[int, In("INT", default=20, min=1, max=10000)]
Cfg = Annotated[float, In("FLOAT", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01)]
SamplerName = Annotated[str, In(list(SAMPLERS))]
SchedulerName = Annotated[str, In(list(SCHEDULERS))]


@node("KSampler", title="KSampler", title_zh="K采样器", category="sampling", outputs=[Out("LATENT")])
def ksampler(
    ctx: NodeContext,
    model: MODEL,
    seed: Seed,
    steps: Steps,
    cfg: Cfg,
    sampler_name: SamplerName,
    scheduler: SchedulerName,
    positive: CONDITIONING,
    negative: CONDITIONING,
    latent_image: LATENT,
    denoise: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.01)],
) -> tuple[dict[str, Any]]:
    sigmas = sigmas_for(schedule_of(model), scheduler, steps, denoise=denoise, sampler_name=sampler_name)
    return (_sampled(ctx, model, seed, cfg, sampler_name, sigmas, positive, negative, latent_image, add_noise=True),)


@node(
    "KSamplerAdvanced",
    title="KSampler (Advanced)",
    title_zh="K采样器（高级）",
    category="sampling",
    outputs=[Out("LATENT")],
)
def ksampler_advanced(
    ctx: NodeContext,
    model: MODEL,
    add_noise: Annotated[str, In(["enable", "disable"])],
    noise_seed: Seed,
    steps: Steps,
    cfg: Cfg,
    sampler_name: SamplerName,
    scheduler: SchedulerName,
    positive: CONDITIONING,
    negative: CONDITIONING,
    latent_image: LATENT,
    start_at_step: Annotated[int, In("INT", default=0, min=0, max=10000)],
    end_at_step: Annotated[int, In("INT", default=10000, min=0, max=10000)],
    return_with_leftover_noise: Annotated[str, In(["disable", "enable"])],
) -> tuple[dict[str, Any]]:
    """A part of a run: from start_at_step to end_at_step, with or without noise at its beginning and end."""
    sigmas = sigmas_for(schedule_of(model), scheduler, steps, sampler_name=sampler_name)
    if end_at_step < len(sigmas) - 1:
        sigmas = sigmas[: end_at_step + 1]
        if return_with_leftover_noise == "disable":
            sigmas[-1] = 0.0
    # A part that starts at or behind its end has no steps: the latent is handed on.
    sigmas = sigmas[start_at_step:] if start_at_step < len(sigmas) - 1 else []
    noisy = add_noise == "enable"
    return (
        _sampled(ctx, model, noise_seed, cfg, sampler_name, sigmas, positive, negative, latent_image, add_noise=noisy),
    )


def _sampled(
    ctx: NodeContext,
    model: Model,
    seed: int,
    cfg: float,
    sampler_name: str,
    sigmas: list[float],
    positive: list[Any],
    negative: list[Any],
    latent_image: dict[str, Any],
    *,
    add_noise: bool,
) -> dict[str, Any]:
    out = sample(
        ctx.models,
        cfg_guider(model, positive, negative, cfg),
        sampler=SAMPLERS[sampler_name],
        sigmas=sigmas,
        noise=Noise(seed, none=not add_noise),
        latent=latent_image["samples"],
        batch_index=latent_image.get("batch_index"),
        noise_mask=latent_image.get("noise_mask"),
        callback=shown(ctx, model),
        interrupt_check=ctx.interrupt_check,
    )
    return {**latent_image, "samples": out.latent}


def shown(ctx: NodeContext, model: Model) -> Callback:
    """Tells how far a run is and shows its picture so far."""
    picture = previewer(ctx.models, ctx.workspace, model, ctx.preview_method)

    def show(step: Step) -> None:
        image = picture(step.denoised)
        if image is not None:
            ctx.preview(image)
        ctx.progress(step.index + 1, step.total)

    return show
