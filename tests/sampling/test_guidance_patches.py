"""Other ways to weigh prompts: exact values on small latents, and skipped blocks of real transformers."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from torch import Tensor

from engine.families.parts.patch import Acting, Guidance, Now, Patch, all_acting
from engine.families.parts.schedule import DiscreteSchedule, FlowSchedule, scaled_linear_alphas_cumprod
from engine.sampling.guidance import Guided
from engine.sampling.guiders import Cfg
from engine.sampling.inpaint import Masked
from engine.sampling.patches import guidance, layers
from tests.sampling.gaussian import Gaussian
from tests.sampling.test_guidance import LATENT, SCHEDULE, Recorder, prompt, read

COND, UNCOND, X = (torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3))
SD = DiscreteSchedule.from_alphas_cumprod(scaled_linear_alphas_cumprod())


@dataclass
class Seen:
    """A Guidance of given estimates."""

    cond: Tensor
    uncond: Tensor
    cfg: float = 7.0
    sigma: float = 2.0
    x: Tensor = X
    has_uncond: bool = True
    schedule: Any = SD
    sigmas: tuple[float, ...] = (14.0, 2.0, 0.0)


def post(patch: Patch, denoised: Tensor, **given: Any) -> Tensor:
    assert patch.post is not None
    return patch.post(cast(Guidance, Seen(**given)), denoised)


def cfg(patch: Patch, **given: Any) -> Tensor:
    assert patch.cfg is not None
    return patch.cfg(cast(Guidance, Seen(**given)))


def test_rescaled_guidance_keeps_the_deviation_of_the_positive_v() -> None:
    sigma = 2.0

    def v(denoised: Tensor) -> Tensor:
        return (X / (sigma**2 + 1) - denoised) * math.sqrt(sigma**2 + 1) / sigma

    plain = cfg(guidance.rescale_cfg(0.0), cond=COND, uncond=UNCOND, x=X)
    assert torch.allclose(plain, UNCOND + (COND - UNCOND) * 7.0, atol=1e-4)
    rescaled = cfg(guidance.rescale_cfg(1.0), cond=COND, uncond=UNCOND, x=X)
    assert torch.allclose(v(rescaled).std(dim=(1, 2, 3)), v(COND).std(dim=(1, 2, 3)), rtol=1e-4)


def test_renormed_guidance_is_no_longer_than_the_positive_estimate_in_each_picture() -> None:
    renormed = cfg(guidance.renorm_cfg(1000.0, 1.0), cond=COND, uncond=UNCOND)
    assert torch.allclose(renormed.flatten(1).norm(dim=1), COND.flatten(1).norm(dim=1))
    assert torch.allclose(cfg(guidance.renorm_cfg(1000.0, 0.0), cond=COND, uncond=UNCOND), UNCOND + 7 * (COND - UNCOND))
    assert cfg(guidance.renorm_cfg(0.0, 1.0), cond=COND, uncond=UNCOND) is COND


def test_cfg_zero_star_scales_the_negative_velocity() -> None:
    scale = ((X - COND) * (X - UNCOND)).sum((1, 2, 3)) / (X - UNCOND).square().sum((1, 2, 3))
    plain = UNCOND + (COND - UNCOND) * 7.0
    # in terms of velocities from x: v = s u + cfg (c - s u), and the term of x cancels in what is added
    expected = plain + UNCOND * (scale.view(-1, 1, 1, 1) - 1) * (1 - 7.0)
    assert torch.allclose(post(guidance.cfg_zero_star(), plain, cond=COND, uncond=UNCOND, x=X), expected, atol=1e-4)
    same = post(guidance.cfg_zero_star(), COND, cond=COND, uncond=COND, x=X)
    assert torch.allclose(same, COND, atol=1e-5)


def test_no_cell_is_longer_than_that_of_the_positive_estimate() -> None:
    normed = post(guidance.cfg_norm(1.0), COND * 3, cond=COND, uncond=UNCOND)
    assert torch.allclose(normed, COND, atol=1e-5)
    assert torch.allclose(post(guidance.cfg_norm(0.5), COND / 2, cond=COND, uncond=UNCOND), COND / 4)


def test_tangential_damping_keeps_parallel_scores() -> None:
    patch = guidance.tangential_damping()
    assert patch.pre is not None
    seen = Seen(X - COND, X - COND * 0.5, x=X)
    cond, uncond = patch.pre(cast(Guidance, seen))
    assert cond is seen.cond and torch.allclose(uncond, seen.uncond, atol=1e-4)
    # a small score at right angles to a long one is dropped
    long, across = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    long[..., 0], across[..., 1] = 5.0, 1.0
    _, uncond = patch.pre(cast(Guidance, Seen(-long, -across, x=torch.zeros(1, 1, 1, 2))))
    assert torch.allclose(uncond, torch.zeros(1, 1, 1, 2), atol=1e-6)
    alone = Seen(COND, UNCOND, has_uncond=False)
    assert patch.pre(cast(Guidance, alone)) == (COND, UNCOND)


def test_mahiro_is_plain_guidance_where_both_directions_agree() -> None:
    same = post(guidance.mahiro(), COND, cond=COND, uncond=COND, cfg=1.0)
    assert torch.allclose(same, COND, atol=1e-6)
    opposite = post(guidance.mahiro(), COND * 2, cond=COND, uncond=-COND, cfg=3.0)
    assert torch.allclose(opposite, COND * 3, atol=1e-5)


def test_scaled_noise() -> None:
    out = post(guidance.epsilon_scaling(1.25), COND, cond=COND, uncond=UNCOND, x=X)
    assert torch.allclose(X - out, (X - COND) / 1.25, atol=1e-6)


def test_patches_stack_in_their_order_and_the_last_cfg_counts() -> None:
    patches = [
        Patch("a", cfg=lambda seen: seen.cond * 0, post=lambda seen, denoised: denoised + 1),
        Patch("b", pre=lambda seen: (seen.cond * 2, seen.uncond)),
        Patch("c", cfg=lambda seen: seen.cond, post=lambda seen, denoised: denoised * 10),
    ]
    sides = [read(prompt(value)) for value in (1.0, 0.5)]
    denoised = Guided(Recorder(), SCHEDULE, "eps", sides, Cfg(3.0), patches=patches)(LATENT, 2.0)
    assert torch.allclose(denoised, torch.full_like(LATENT, (-2.0 * 2 + 1) * 10))


def test_a_patch_may_ask_for_prompts_of_its_own() -> None:
    model = Recorder()
    sides = [read(prompt(value)) for value in (1.0, 0.5)]
    patch = guidance.perp_neg(prompt(0.0), 1.0)
    denoiser = Guided(model, SCHEDULE, "eps", sides, Cfg(3.0), patches=[patch], read=read)
    # all three point the same way: nothing of the negative one is at right angles
    assert torch.allclose(denoiser(LATENT, 2.0), torch.full_like(LATENT, 3 * -2.0), atol=1e-5)
    assert [x.shape[0] for x, _, _ in model.inputs] == [4, 2]


@pytest.mark.parametrize(("sigma", "inside"), [(1.0, [0, 0, 0, 1]), (0.5, [0, 0, 1, 1]), (0.1, [0, 1, 1, 1])])
def test_a_soft_mask_opens_on_the_way(sigma: float, inside: list[int]) -> None:
    soft, schedule, sigmas = torch.tensor([0.05, 0.4, 0.6, 1.0]), FlowSchedule(1.0, 1.0), (1.0, 0.5, 0.0)
    hard, half = (guidance.differential_diffusion(strength).mask for strength in (1.0, 0.5))
    assert hard is not None and hard(soft, schedule, sigma, sigmas).tolist() == inside
    assert half is not None
    assert torch.allclose(half(soft, schedule, sigma, sigmas), (soft + torch.tensor(inside)) / 2)


def test_a_masked_run_asks_the_patch_at_every_step() -> None:
    asked: list[float] = []

    def mask(given: Tensor, schedule: Any, sigma: float, sigmas: Any) -> Tensor:
        asked.append(sigma)
        return given * 0

    latent = torch.full((1, 4, 8, 8), 5.0)
    masked = Masked(Gaussian(), SD, torch.ones(1, 1, 8, 8), latent, latent * 0, patches=[Patch("m", mask=mask)])
    assert torch.equal(masked(latent * 2, 3.0), latent) and asked == [3.0]


FLUX: dict[str, Any] = {
    "in_channels": 4, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2,
    "joint_attention_dim": 8, "pooled_projection_dim": 8, "guidance_embeds": False, "axes_dims_rope": (2, 2, 4),
}  # fmt: skip
SD3: dict[str, Any] = {
    "sample_size": 8, "patch_size": 2, "in_channels": 4, "num_layers": 3, "attention_head_dim": 8,
    "num_attention_heads": 2, "joint_attention_dim": 8, "caption_projection_dim": 16, "pooled_projection_dim": 8,
    "out_channels": 4, "pos_embed_max_size": 8,
}  # fmt: skip


def call(module: Any, *acting: Acting, sides: tuple[int, ...] = (0, 1), sigma: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    batch = len(sides)
    text, pooled = torch.randn(batch, 3, 8, generator=generator), torch.randn(batch, 8, generator=generator)
    given: dict[str, Any] = {"encoder_hidden_states": text, "pooled_projections": pooled, "return_dict": False}
    given["timestep"] = torch.full((batch,), sigma)
    if isinstance(module, FluxTransformer2DModel):
        given |= {"hidden_states": torch.randn(batch, 4, 4, generator=generator)}
        given |= {"txt_ids": torch.zeros(3, 3), "img_ids": torch.zeros(4, 3)}
    else:
        given["hidden_states"] = torch.randn(batch, 4, 8, 8, generator=generator)
    with torch.no_grad(), all_acting(module, Now(sigma, sides), acting):
        return module(**given)[0]


def without(module: Any, stack: str, number: int) -> Any:
    changed = copy.deepcopy(module)
    del getattr(changed, stack)[number]
    return changed


@pytest.mark.parametrize(
    ("kind", "config", "stack", "number"),
    [
        (FluxTransformer2DModel, FLUX, "transformer_blocks", 1),
        (FluxTransformer2DModel, FLUX, "single_transformer_blocks", 0),
        (SD3Transformer2DModel, SD3, "transformer_blocks", 1),
    ],
)
def test_a_skipped_block_is_as_if_it_were_not_there(kind: Any, config: Any, stack: str, number: int) -> None:
    torch.manual_seed(0)
    module = kind(**config).eval()
    double, single = ([number], []) if stack == "transformer_blocks" else ([], [number])
    plain, expected = call(module), call(without(module, stack, number))
    patch = layers.skip_layers_of_negative(double, single, 1.0, 0.2)
    mixed = call(module, cast(Acting, patch.acting))
    assert torch.allclose(mixed[:1], plain[:1], atol=1e-6) and torch.allclose(mixed[1:], expected[1:], atol=1e-5)
    assert not torch.allclose(mixed[1:], plain[1:], atol=1e-4)
    assert torch.equal(call(module, cast(Acting, patch.acting), sigma=0.1), call(module, sigma=0.1))
    assert torch.allclose(call(module, layers.skipping(double, single)), expected, atol=1e-5)
    assert torch.equal(call(module), plain)


def test_the_last_block_of_sd3_gives_no_text_also_when_skipped() -> None:
    torch.manual_seed(0)
    module = SD3Transformer2DModel(**SD3).eval()
    assert not torch.allclose(call(module, layers.skipping([2], [])), call(module), atol=1e-4)


def test_a_block_that_is_not_there_is_named() -> None:
    module = SD3Transformer2DModel(**SD3).eval()
    with pytest.raises(layers.NoSuchLayer, match="3 transformer_blocks, numbered from 0; there is no 7"):
        call(module, layers.skipping([7], []))


def test_skipping_acts_between_its_sigmas_and_may_be_rescaled() -> None:
    class Again(Seen):
        def again(self, *acting: Acting) -> Tensor:
            return UNCOND

    patch = layers.skip_layers([1], [], 2.0, 3.0, 1.0, 0.0)
    assert patch.post is not None
    guided = patch.post(cast(Guidance, Again(COND, UNCOND, sigma=2.0)), X)
    assert torch.allclose(guided, X + (COND - UNCOND) * 2)
    assert patch.post(cast(Guidance, Again(COND, UNCOND, sigma=4.0)), X) is X
    rescaled = layers.skip_layers([1], [], 2.0, 3.0, 1.0, 1.0).post
    assert rescaled is not None
    assert float(rescaled(cast(Guidance, Again(COND, UNCOND)), X).std()) == pytest.approx(float(COND.std()), rel=1e-5)
