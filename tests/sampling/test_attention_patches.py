"""Tiles, merged tokens and multiplied attention on small UNets of the real class, against plain computations."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from engine.nodes import attention_patches as nodes
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.loaders import checkpoint_loader_simple
from engine.sampling.patches.multiply import multiplied
from engine.sampling.patches.tiles import hypertile, tile_side, tiled, whole
from engine.sampling.patches.tome import destinations, matching, merge_tokens
from engine.sampling.patches.unet import NeedsUNet, Size, removing, transformer_blocks
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.nodes.context import Context
from tests.sampling.test_run import Context as RunContext
from tests.sampling.test_run import model, run
from tests.sampling.test_unet_patches import CONFIG, CTX, call


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**CONFIG).eval()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_tiles_are_rectangles_of_the_picture() -> None:
    picture = torch.arange(24).reshape(4, 6)
    hidden = picture.reshape(1, 24, 1)
    tiles = tiled(hidden, 2, 3, 2, 2)
    assert [tile.flatten().tolist() for tile in tiles][1] == picture[:2, 2:4].flatten().tolist()
    assert [tile.flatten().tolist() for tile in tiles][3] == picture[2:, :2].flatten().tolist()
    batch = torch.randn(3, 24, 5)
    assert torch.equal(whole(tiled(batch, 2, 3, 2, 2), 2, 3, 2, 2), batch)


def test_a_tiles_side_divides_and_is_long_enough() -> None:
    assert {tile_side(64, 12, 2, Random(i)) for i in range(20)} == {16, 32}
    assert tile_side(64, 12, 1, Random(0)) == 16 and tile_side(7, 3, 4, Random(0)) == 7
    assert tile_side(4, 100, 3, Random(0)) == 4


def test_self_attention_in_tiles_is_that_of_each_tile_alone(unet: UNet2DConditionModel) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    layer = transformer_blocks(unet)[0].attn1
    plain = call(unet)
    with hypertile(8, 1, 0, False)(unet, cast(Any, None)):
        handle = layer.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
        tiled_call = call(unet)
        handle.remove()
    assert seen[0][0].shape == (4, 64, 8)
    with torch.no_grad():
        assert torch.allclose(layer(seen[0][0][1:2]), tiled(seen[0][1], 2, 2, 8, 8)[1:2], atol=1e-6)
    assert not torch.allclose(tiled_call, plain, atol=1e-4)
    assert torch.equal(call(unet), plain)


def test_depth_says_which_layers_are_tiled(unet: UNet2DConditionModel) -> None:
    def batches(depth: int, scale: bool) -> set[tuple[int, int]]:
        seen: set[tuple[int, int]] = set()
        with hypertile(4, 1, depth, scale)(unet, cast(Any, None)):
            handles = [b.attn1.register_forward_pre_hook(lambda _, args: seen.add(tuple(args[0].shape[:2])))
                       for b in transformer_blocks(unet)]  # fmt: skip
            with removing(*handles):
                call(unet)
        return seen

    assert batches(0, False) == {(16, 16), (1, 64), (1, 16)}
    assert batches(1, False) == {(16, 16), (4, 16), (1, 16)}
    assert batches(1, True) == {(16, 16), (1, 64), (1, 16)}


def test_sizes_that_do_not_halve_are_left_alone(unet: UNet2DConditionModel) -> None:
    assert Size(9, 9).level(81) == 0 and Size(9, 9).level(25) is None and Size(16, 8).level(32) == 1
    assert call(unet, hypertile(3, 1, 3, False), size=9).isfinite().all()


def test_one_neighbour_of_four_is_a_destination() -> None:
    to, of = destinations(Size(4, 6), generator())
    assert len(to) == 6 and sorted([*to.tolist(), *of.tolist()]) == list(range(24))
    assert {(int(n) // 6 // 2, int(n) % 6 // 2) for n in to} == {(y, x) for y in range(2) for x in range(3)}
    assert len(destinations(Size(1, 5), generator())[0]) == 0
    assert len(destinations(Size(5, 5), generator())[0]) == 4


def test_the_sources_most_alike_are_averaged_into_their_destinations() -> None:
    size, tokens = Size(4, 4), torch.randn(2, 16, 6, generator=generator())
    merge, unmerge = matching(tokens, size, 5, generator())
    to, of = destinations(size, generator())
    merged = merge(tokens)
    assert merged.shape == (2, 11, 6)
    for image in range(2):
        unit = tokens[image] / tokens[image].norm(dim=1, keepdim=True)
        likeness = unit[of] @ unit[to].T
        best, nearest = likeness.max(dim=1)
        gone = best.argsort(descending=True)[:5].tolist()
        for place, destination in enumerate(to.tolist()):
            group = [destination, *(int(of[s]) for s in gone if int(nearest[s]) == place)]
            assert torch.allclose(merged[image, 7 + place], tokens[image, group].mean(dim=0), atol=1e-6)
        back = unmerge(merged)[image]
        for source in gone:
            assert torch.equal(back[of[source]], merged[image, 7 + int(nearest[source])])
        kept = [int(of[s]) for s in range(12) if s not in gone]
        assert torch.equal(back[kept], tokens[image, kept])


@pytest.mark.parametrize(("ratio", "left"), [(0.0, 256), (0.3, 180), (0.75, 64), (1.0, 64)])
def test_that_share_of_the_tokens_goes_in_outer_layers(unet: UNet2DConditionModel, ratio: float, left: int) -> None:
    seen: set[int] = set()
    plain = call(unet)
    with merge_tokens(ratio)(unet, cast(Any, None)):
        handles = [b.attn1.register_forward_pre_hook(lambda _, args: seen.add(args[0].shape[1]))
                   for b in transformer_blocks(unet)]  # fmt: skip
        with removing(*handles):
            first = call(unet, sides=(0, 1))
    assert seen == {left, 64, 16}
    assert torch.equal(call(unet, merge_tokens(ratio), sides=(0, 1)), first)
    assert torch.equal(call(unet), plain)
    assert call(unet, merge_tokens(ratio), size=9).isfinite().all()


def test_multiplied_attention_is_that_of_multiplied_weights(unet: UNet2DConditionModel) -> None:
    plain = call(unet)
    factors = {"attn1.to_q": 0.5, "attn1.to_out.0": 1.5, "attn2.to_v": 2.0}
    out = call(unet, multiplied(factors))
    twin = UNet2DConditionModel(**CONFIG).eval()
    weights = {
        name: tensor * next((f for end, f in factors.items() if f".{end}." in name), 1.0)
        for name, tensor in unet.state_dict().items()
    }
    twin.load_state_dict(weights)
    assert torch.allclose(out, call(twin), atol=1e-5) and not torch.allclose(out, plain, atol=1e-4)
    assert torch.equal(call(unet), plain)
    assert torch.equal(call(unet, multiplied(factors, temporal=True)), plain)
    assert torch.equal(call(unet, multiplied(factors, temporal=False)), out)


def test_nodes_patch_a_run_and_leave_nothing_behind() -> None:
    ctx = RunContext()
    plain = run(ctx)
    given = model(ctx)
    for (changed,) in (
        nodes.hyper_tile(CTX, given, 32, 1, 0, False),
        nodes.tome_patch_model(CTX, given, 0.5),
        nodes.unet_self_attention_multiply(CTX, given, 1.0, 1.0, 2.0, 1.0),
        nodes.unet_cross_attention_multiply(CTX, given, 1.0, 1.0, 2.0, 1.0),
        nodes.unet_temporal_attention_multiply(CTX, given, 1.5, 1.0, 0.5, 1.0),
    ):
        assert not torch.allclose(run(ctx, changed), plain, atol=1e-5)
        assert torch.equal(run(ctx), plain)
    (nothing,) = nodes.unet_temporal_attention_multiply(CTX, given, 1.0, 9.0, 1.0, 9.0)
    assert torch.equal(run(ctx, nothing), plain)


def test_they_say_so_where_there_is_no_unet() -> None:
    other = model(RunContext())
    object.__setattr__(other, "config", {"num_layers": 2})
    for call_node in (
        lambda: nodes.hyper_tile(CTX, other, 256, 2, 0, False),
        lambda: nodes.tome_patch_model(CTX, other, 0.3),
        lambda: nodes.unet_self_attention_multiply(CTX, other, 1.0, 1.0, 1.0, 2.0),
    ):
        with pytest.raises(NeedsUNet):
            call_node()


def test_a_clips_attention_is_that_of_multiplied_weights(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).create()
    make_tiny_sd1(workspace.models / "checkpoints" / "tiny.safetensors", dtype=torch.float32)
    ctx = Context(workspace)
    _, clip, _ = checkpoint_loader_simple(ctx, "tiny.safetensors")
    plain = clip_text_encode(ctx, "a cat", clip)[0][0][0]
    (changed,) = nodes.clip_attention_multiply(ctx, clip, 0.5, 1.0, 2.0, 1.5)
    out = clip_text_encode(ctx, "a cat", changed)[0][0][0]
    with ctx.models.lease(*clip.refs) as leased:
        twin: Any = leased[clip.refs[0]]
        before = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
        for name, factor in {"q_proj": 0.5, "v_proj": 2.0, "out_proj": 1.5}.items():
            for key, tensor in twin.state_dict().items():
                if f"self_attn.{name}." in key:
                    tensor.mul_(factor)
        expected = clip_text_encode(ctx, "a cat", clip)[0][0][0]
        twin.load_state_dict(before)
    assert torch.allclose(out, expected, atol=1e-5) and not torch.allclose(out, plain, atol=1e-3)
    assert torch.equal(clip_text_encode(ctx, "a cat", clip)[0][0][0], plain)
    assert nodes.clip_attention_multiply(ctx, clip, 1.0, 1.0, 1.0, 1.0)[0] == clip
