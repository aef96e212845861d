"""Patches on small UNets of the real class: what they change, and that nothing is left of them afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from engine.families.parts.patch import Acting, Now, all_acting
from engine.graph.node import NodeContext
from engine.nodes import unet_patches
from engine.sampling.patches.attention import gaussian_blur, nearest_divisor, to_itself
from engine.sampling.patches.downscale import downscale
from engine.sampling.patches.freeu import by_mean, flat, freeu, low_scaled
from engine.sampling.patches.unet import (
    NeedsUNet,
    NoMiddleAttention,
    input_blocks,
    joins,
    middle_self_attentions,
    processing,
)
from tests.sampling.test_run import Context, model, run

CONFIG: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16, 32),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
CTX = cast(NodeContext, None)


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**CONFIG).eval()


def call(unet: nn.Module, *acting: Acting, sigma: float = 5.0, size: int = 16, sides: tuple[int, ...] = (0,)) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(sides), 4, size, size, generator=generator)
    text = torch.randn(len(sides), 3, 8, generator=generator)
    now = Now(sigma, sides)
    with torch.no_grad(), all_acting(unet, now, acting):
        return unet(x, torch.full((len(sides),), 500.0), encoder_hidden_states=text, return_dict=False)[0]


def resize(hidden: Tensor, width: int, height: int) -> Tensor:
    return nn.functional.interpolate(hidden, (height, width), mode="bilinear")


def shrink(block: int, after_skip: bool = True, factor: float = 2.0) -> Acting:
    return downscale(block, factor, 10.0, 1.0, after_skip, resize, resize)


def test_input_blocks_are_counted_as_in_ldm(unet: UNet2DConditionModel) -> None:
    blocks = input_blocks(unet)
    down: Any = unet.down_blocks
    assert len(blocks) == 1 + 3 + 3 + 2
    assert blocks[0].first is unet.conv_in and blocks[3].last is down[0].downsamplers[0]
    assert blocks[4].first is down[1].resnets[0] and blocks[4].last is down[1].attentions[0]
    assert blocks[8].last is down[2].resnets[1]


def test_joins_know_the_width_of_their_hidden_state(unet: UNet2DConditionModel) -> None:
    assert [join.width for join in joins(unet)] == [32, 32, 32, 32, 16, 16, 16, 8, 8]


@pytest.mark.parametrize("after_skip", [True, False])
@pytest.mark.parametrize("block", range(1, 9))
@pytest.mark.parametrize("size", [16, 18])
def test_any_block_may_be_shrunk(unet: UNet2DConditionModel, block: int, after_skip: bool, size: int) -> None:
    plain = call(unet, size=size)
    shrunk = call(unet, shrink(block, after_skip), size=size)
    assert shrunk.shape == plain.shape and not torch.allclose(shrunk, plain, atol=1e-3)
    assert torch.equal(call(unet, size=size), plain)


@pytest.mark.parametrize("acting", [shrink(3, factor=1.0), shrink(20), shrink(0)])
def test_shrinking_by_nothing_or_at_another_sigma_changes_nothing(unet: UNet2DConditionModel, acting: Acting) -> None:
    assert torch.allclose(call(unet, acting, sigma=11.0), call(unet), atol=1e-6)
    assert torch.allclose(call(unet, shrink(3, factor=1.0)), call(unet), atol=1e-6)


def test_a_hook_is_gone_after_an_error_too(unet: UNet2DConditionModel) -> None:
    def broken(hidden: Tensor, width: int, height: int) -> Tensor:
        raise RuntimeError("broken")

    plain = call(unet)
    with pytest.raises(RuntimeError, match="broken"):
        call(unet, downscale(2, 2.0, 10.0, 1.0, True, broken, broken))
    assert torch.equal(call(unet), plain)


def test_freeu_with_factors_of_one_changes_nothing(unet: UNet2DConditionModel) -> None:
    ones = {32: (1.0, 1.0), 16: (1.0, 1.0)}
    for factors in (flat, by_mean):
        assert torch.allclose(call(unet, freeu(ones, factors)), call(unet), atol=1e-5)
    assert not torch.allclose(call(unet, freeu({32: (1.2, 1.0)}, flat)), call(unet), atol=1e-5)


def test_half_of_the_hidden_states_channels_are_raised_and_the_skips_mean_lowered(unet: UNet2DConditionModel) -> None:
    seen: list[Tensor] = []
    with torch.no_grad():
        handle = joins(unet)[0].resnet.register_forward_pre_hook(lambda layer, args: seen.append(args[0].clone()))
        call(unet)
        handle.remove()
        with freeu({32: (2.0, 0.0)}, flat)(unet, Now()):
            handle = joins(unet)[0].resnet.register_forward_pre_hook(lambda layer, args: seen.append(args[0].clone()))
            call(unet)
            handle.remove()
    plain, patched = seen
    assert torch.allclose(patched[:, :16], plain[:, :16] * 2)
    assert torch.equal(patched[:, 16:32], plain[:, 16:32])
    assert torch.allclose(patched[:, 32:].mean(dim=(2, 3)), torch.zeros(1, 32), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (5, 7)])
def test_low_frequencies_are_those_around_the_middle_of_a_shifted_spectrum(size: tuple[int, int]) -> None:
    skip = torch.randn(2, 3, *size)
    spectrum = torch.fft.fftshift(torch.fft.fftn(skip, dim=(-2, -1)), dim=(-2, -1))
    row, column = size[0] // 2, size[1] // 2
    spectrum[..., max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] *= 0.3
    expected = torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=(-2, -1)), dim=(-2, -1)).real
    assert torch.allclose(low_scaled(skip, 0.3), expected, atol=1e-5)


def test_the_second_version_raises_by_the_scaled_mean() -> None:
    hidden = torch.tensor([0.0, 1.0, 3.0, 4.0]).reshape(1, 1, 2, 2).repeat(1, 2, 1, 1)
    assert by_mean(hidden, 1.4).flatten().tolist() == pytest.approx([1.0, 1.1, 1.3, 1.4])


def test_perturbed_attention_gives_each_token_its_own_value(unet: UNet2DConditionModel) -> None:
    (attention,) = middle_self_attentions(unet)
    tokens = torch.randn(1, 4, 32)
    with torch.no_grad(), processing([attention], to_itself):
        assert torch.allclose(attention(tokens), attention.to_out[0](attention.to_v(tokens)), atol=1e-6)
    assert attention.processor is not to_itself


WITH_MIDDLE = {"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": (16, 16)}


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        (unet_patches.perturbed_attention_guidance, {"scale": 3.0}),
        (unet_patches.self_attention_guidance_node, {"scale": 0.5, "blur_sigma": 2.0}),
        (unet_patches.freeu_node, {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}),
        (
            unet_patches.patch_model_add_downscale,
            {
                "block_number": 1, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.5,
                "downscale_after_skip": True, "downscale_method": "bislerp", "upscale_method": "bicubic",
            },
        ),
    ],
)  # fmt: skip
def test_a_patched_run_differs_and_leaves_nothing_behind(node: Any, inputs: dict[str, Any]) -> None:
    ctx = Context()
    plain = replace(model(ctx), modules=WITH_MIDDLE)
    given = {"latent_image": {"samples": torch.zeros(2, 4, 16, 16)}}
    before = run(ctx, plain, **given)
    (patched,) = node(cast(NodeContext, ctx), plain, **inputs)
    assert patched.patches != plain.patches == ()
    after = run(ctx, patched, **given)
    # this small UNet is 8 wide: FreeU acts on 32 and 16 alone
    assert not torch.allclose(after, before, atol=1e-4)
    assert torch.equal(run(ctx, plain, **given), before)


def test_self_attention_guidance_asks_for_the_negative_prompt_at_cfg_one() -> None:
    ctx = Context()
    plain = replace(model(ctx), modules=WITH_MIDDLE)
    given = {"latent_image": {"samples": torch.zeros(1, 4, 16, 16)}, "cfg": 1.0}
    (patched,) = unet_patches.self_attention_guidance_node(cast(NodeContext, ctx), plain, 0.5, 2.0)
    assert not torch.allclose(run(ctx, patched, **given), run(ctx, plain, **given), atol=1e-4)


def test_other_kinds_of_models_are_named() -> None:
    ctx = Context()
    other = replace(model(ctx), config={})
    with pytest.raises(NeedsUNet, match="FreeU works on UNets"):
        unet_patches.freeu_node(CTX, other, 1.1, 1.2, 0.9, 0.2)
    with pytest.raises(NoMiddleAttention, match="PerturbedAttentionGuidance"):
        unet_patches.perturbed_attention_guidance(CTX, model(ctx), 3.0)


def test_a_blur_keeps_what_is_flat_and_spreads_a_point_evenly() -> None:
    assert torch.allclose(gaussian_blur(torch.ones(1, 2, 16, 16), 2.0), torch.ones(1, 2, 16, 16))
    point = torch.zeros(1, 1, 17, 17)
    point[..., 8, 8] = 1.0
    blurred = gaussian_blur(point, 2.0)
    assert float(blurred.sum()) == pytest.approx(1.0) and torch.allclose(blurred, blurred.mT)
    assert torch.equal(gaussian_blur(point, 0.0), point)


@pytest.mark.parametrize(("total", "near", "found"), [(64, 8, 8), (60, 8, 10), (7, 3, 1), (12, 5, 6)])
def test_the_grid_of_the_tokens(total: int, near: int, found: int) -> None:
    assert nearest_divisor(total, near) == found
