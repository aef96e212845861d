"""Whole runs of the KSampler nodes on a small UNet of the real class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from engine.errors import Cancelled
from engine.families.base import Adapter, LatentFormat, Model
from engine.families.discover import family
from engine.graph.node import NodeContext
from engine.models.device import CpuDevice, Device
from engine.models.loaded import TorchModel
from engine.models.manager import ModelManager, ModelSpec
from engine.nodes.samplers import sampler_lcm_upscale
from engine.nodes.sampling import ksampler, ksampler_advanced
from engine.sampling.guiders import cfg_guider
from engine.sampling.model import schedule_of
from engine.sampling.noise import Noise
from engine.sampling.run import BadSigmas, KeepsItsSize, NotANumber, NoWay, WrongChannels, sample
from engine.sampling.samplers.table import SAMPLERS
from engine.sampling.schedulers import sigmas_for
from engine.weights.lora import LoraEntry
from engine.workspace import Workspace

FORMAT = LatentFormat(channels=4, scale=0.5, rgb=((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)))
CONFIG: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


class Context:
    """What a KSampler uses of its NodeContext; keeps what it was told."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.models = ModelManager(CpuDevice())
        self.workspace, self.preview_method = Workspace(Path("/nonexistent")), "auto"
        self.told: list[tuple[int, int]] = []
        self.pictures: list[tuple[int, int]] = []
        self.cancel_at = cancel_at

    def progress(self, step: int, total: int) -> None:
        self.told.append((step, total))
        if step == self.cancel_at:
            raise Cancelled

    def preview(self, image: Any) -> None:
        self.pictures.append(image.size)

    def interrupt_check(self) -> None:
        pass


def model(ctx: Context) -> Model:
    def load(device: Device) -> TorchModel:
        torch.manual_seed(0)
        return TorchModel(UNet2DConditionModel(**CONFIG))

    ref = ctx.models.add(ModelSpec("tiny", "denoiser", "tiny UNet", 0, load))
    return Model(family=family("sd1"), ref=ref, config=CONFIG, prediction="eps", latent=FORMAT, modules={})


def prompt(seed: int) -> list[Any]:
    return [[torch.randn(1, 77, 8, generator=torch.Generator().manual_seed(seed)), {"pooled_output": None}]]


def run(ctx: Context, with_model: Model | None = None, **changes: Any) -> Tensor:
    inputs: dict[str, Any] = {
        "model": with_model or model(ctx),
        "seed": 5,
        "steps": 3,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "positive": prompt(1),
        "negative": prompt(2),
        "latent_image": {"samples": torch.zeros(1, 4, 8, 8)},
        "denoise": 1.0,
    }
    (latent,) = ksampler(cast(NodeContext, ctx), **{**inputs, **changes})
    return latent["samples"]


def advanced(ctx: Context, latent: Tensor, **changes: Any) -> Tensor:
    inputs: dict[str, Any] = {
        "model": model(ctx),
        "add_noise": "enable",
        "noise_seed": 5,
        "steps": 4,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "karras",
        "positive": prompt(1),
        "negative": prompt(2),
        "latent_image": {"samples": latent},
        "start_at_step": 0,
        "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
    }
    (out,) = ksampler_advanced(cast(NodeContext, ctx), **{**inputs, **changes})
    return out["samples"]


EMPTY = torch.zeros(1, 4, 8, 8)


def test_a_run_is_the_same_every_time_and_another_with_another_seed() -> None:
    ctx = Context()
    first = run(ctx)
    assert torch.equal(first, run(ctx))
    assert not torch.allclose(first, run(ctx, seed=6))


def test_every_step_tells_its_progress_and_shows_a_picture() -> None:
    ctx = Context()
    run(ctx)
    assert ctx.told == [(1, 3), (2, 3), (3, 3)]
    assert ctx.pictures == [(8, 8)] * 3


def test_an_interrupted_run_gives_its_model_back() -> None:
    ctx = Context(cancel_at=2)
    with pytest.raises(Cancelled):
        run(ctx)
    assert ctx.told == [(1, 3), (2, 3)]
    assert all(entry["leases"] == 0 for entry in ctx.models.snapshot()["models"])


def test_two_parts_make_the_whole() -> None:
    ctx = Context()
    whole = advanced(ctx, EMPTY)
    first = advanced(ctx, EMPTY, end_at_step=2, return_with_leftover_noise="enable")
    second = advanced(ctx, first, add_noise="disable", start_at_step=2)
    assert torch.allclose(second, whole, atol=1e-5)


def test_a_part_without_leftover_noise_goes_to_sigma_zero_in_its_last_step() -> None:
    ctx = Context()
    sigmas = sigmas_for(schedule_of(model(ctx)), "karras", 4)
    guider = cfg_guider(model(ctx), prompt(1), prompt(2), 4.0)
    options: dict[str, Any] = {"sampler": SAMPLERS["euler"], "noise": Noise(5), "latent": EMPTY}
    expected = sample(ctx.models, guider, sigmas=[*sigmas[:2], 0.0], **options)
    assert torch.equal(advanced(ctx, EMPTY, end_at_step=2), expected.latent)


def test_a_part_without_steps_hands_its_latent_on() -> None:
    ctx = Context()
    latent = torch.randn(1, 4, 8, 8)
    assert torch.equal(advanced(ctx, latent, start_at_step=4), latent)
    assert torch.equal(run(ctx, latent_image={"samples": latent}, denoise=0.0), latent)
    assert ctx.told == []


def test_little_denoise_stays_near_the_latent() -> None:
    ctx = Context()
    latent = torch.randn(1, 4, 8, 8) * 4
    near = run(ctx, latent_image={"samples": latent}, denoise=0.1)
    far = run(ctx, latent_image={"samples": latent}, denoise=0.9)
    assert (near - latent).norm() < 0.2 * (far - latent).norm()


def test_a_masked_run_keeps_what_is_outside_and_the_links_other_values() -> None:
    ctx = Context()
    latent = torch.randn(1, 4, 8, 8)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    given = {"samples": latent, "noise_mask": mask, "extra": 1}
    inputs: dict[str, Any] = {"positive": prompt(1), "negative": prompt(2), "latent_image": given, "denoise": 1.0}
    node_inputs = {"seed": 5, "steps": 3, "cfg": 4.0, "sampler_name": "ddim", "scheduler": "normal", **inputs}
    (out,) = ksampler(cast(NodeContext, ctx), model=model(ctx), **node_inputs)
    assert out["extra"] == 1 and out["noise_mask"] is mask
    assert torch.allclose(out["samples"][..., :4], latent[..., :4], atol=1e-5)
    assert not torch.allclose(out["samples"][..., 4:], latent[..., 4:], atol=0.1)


def test_a_picture_of_a_batch_is_made_alone_as_in_its_batch() -> None:
    ctx = Context()
    batch = run(ctx, latent_image={"samples": torch.zeros(3, 4, 8, 8)})
    drawn = run(ctx, latent_image={"samples": torch.zeros(3, 4, 8, 8), "batch_index": [0, 1, 2]})
    alone = run(ctx, latent_image={"samples": EMPTY, "batch_index": [2]})
    assert torch.allclose(drawn[2:], alone, atol=1e-4)
    assert batch.shape == drawn.shape


def test_a_lora_acts_and_leaves_the_shared_module_as_it_was() -> None:
    ctx = Context()
    plain = model(ctx)
    entry = LoraEntry(down=torch.ones(2, 8), up=torch.ones(8, 2))
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    adapter = Adapter(key="x", title="x", strength=1.0, entries={name: entry})
    before = run(ctx, plain)
    assert not torch.allclose(run(ctx, replace(plain, adapters=(adapter,))), before)
    assert torch.equal(run(ctx, plain), before)


def test_a_broken_model_is_named_instead_of_giving_a_black_picture() -> None:
    ctx = Context()
    broken = model(ctx)
    with ctx.models.lease(broken.ref) as leased, torch.no_grad():
        leased[broken.ref].conv_out.bias.fill_(float("nan"))
    with pytest.raises(NotANumber, match="euler gave values that are not numbers"):
        run(ctx, broken)


def test_a_latent_of_another_family_is_refused_and_an_empty_one_fitted() -> None:
    ctx = Context()
    assert run(ctx, latent_image={"samples": torch.zeros(1, 16, 8, 8)}).shape == (1, 4, 8, 8)
    with pytest.raises(WrongChannels, match="16 channels"):
        run(ctx, latent_image={"samples": torch.ones(1, 16, 8, 8)})


@pytest.mark.parametrize("sigmas", [[1.0, float("nan"), 0.0], [float("inf"), 1.0], [1.0, -1.0], [0.0, 0.0]])
def test_sigmas_that_no_sampler_can_take_are_named(sigmas: list[float]) -> None:
    ctx = Context()
    guider = cfg_guider(model(ctx), prompt(1), prompt(2), 4.0)
    with pytest.raises(BadSigmas, match=f"these are {sigmas[0]:.4g}, {sigmas[1]:.4g}"):
        sample(ctx.models, guider, sampler=SAMPLERS["euler"], sigmas=sigmas, noise=Noise(5), latent=EMPTY)


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "dpmpp_2m_sde", "dpm_fast", "lms", "uni_pc"])
@pytest.mark.parametrize("sigmas", [[0.0, 0.1, 1.0], [0.1, 0.5, 0.9], [1.0, 0.0, 1.0, 0.0]])
def test_sigmas_that_a_sampler_cannot_go_along_are_no_crash(name: str, sigmas: list[float]) -> None:
    ctx = Context()
    guider = cfg_guider(model(ctx), prompt(1), prompt(2), 1.0)
    try:
        out = sample(ctx.models, guider, sampler=SAMPLERS[name], sigmas=sigmas, noise=Noise(5), latent=EMPTY)
    except (NoWay, NotANumber) as error:
        assert name.split("_")[0] in str(error)
    else:
        assert out.latent.isfinite().all()
    assert all(entry["leases"] == 0 for entry in ctx.models.snapshot()["models"])


def test_an_error_of_the_model_stays_its_own() -> None:
    ctx = Context()
    guider = cfg_guider(model(ctx), prompt(1), prompt(2), 1.0)

    def broken(layer: Any, args: Any) -> None:
        raise ValueError("the model's own")

    with ctx.models.lease(guider.model.ref) as leased:
        handle = leased[guider.model.ref].register_forward_pre_hook(broken)
        with pytest.raises(ValueError, match="the model's own"):
            sample(ctx.models, guider, sampler=SAMPLERS["euler"], sigmas=[1.0, 0.0], noise=Noise(5), latent=EMPTY)
        handle.remove()
    with pytest.raises(NoWay, match=r"along the sigmas 0, 0\.1, 1"):
        sample(ctx.models, guider, sampler=SAMPLERS["euler"], sigmas=[0.0, 0.1, 1.0], noise=Noise(5), latent=EMPTY)


def test_an_lcm_run_may_grow_on_the_way() -> None:
    ctx = Context()
    guider = cfg_guider(model(ctx), prompt(1), prompt(2), 1.0)
    seen: list[tuple[int, int]] = []

    def grown(ratio: float, scale_steps: int, latent: Tensor = EMPTY, **more: Any) -> Tensor:
        (sampler,) = sampler_lcm_upscale(cast(NodeContext, ctx), ratio, scale_steps, "bilinear")
        seen.clear()
        return sample(
            ctx.models, guider, sampler=sampler, sigmas=[14.0, 8.0, 4.0, 1.0, 0.0], noise=Noise(5), latent=latent,
            callback=lambda step: seen.append((step.x.shape[-2], step.x.shape[-1])), **more,
        ).latent  # fmt: skip

    assert grown(2.0, -1, torch.zeros(1, 4, 8, 12)).shape == (1, 4, 16, 24)
    assert seen == [(8, 12), (12, 18), (16, 24), (16, 24)]
    assert grown(1.5, 10).shape[-1] == 12 and seen[1:] == [(9, 9), (11, 11), (12, 12)]
    assert grown(0.5, 1).shape[-1] == 4 and seen == [(8, 8), (4, 4), (4, 4), (4, 4)]
    plain = sample(ctx.models, guider, sampler=SAMPLERS["lcm"], sigmas=[14.0, 8.0, 4.0, 1.0, 0.0], noise=Noise(5),
                   latent=EMPTY)  # fmt: skip
    assert torch.equal(grown(1.0, 0), plain.latent) and torch.equal(grown(3.0, 0), plain.latent)
    with pytest.raises(KeepsItsSize, match="the noise mask"):
        grown(2.0, -1, noise_mask=torch.ones(1, 8, 8))
    guider.sides[0][0][1]["area"] = (4, 4, 0, 0)
    with pytest.raises(KeepsItsSize, match="area or mask"):
        grown(2.0, -1)
