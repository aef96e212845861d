"""Nodes on latents that need no model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.families.parts.resizing import resized
from engine.nodes import compositing, latent_batch, latent_math
from engine.workspace import Workspace
from tests.nodes.context import Context


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path))


def numbered(count: int, height: int = 8, width: int = 8) -> dict[str, Tensor]:
    return {"samples": torch.arange(float(count)).reshape(count, 1, 1, 1).expand(count, 4, height, width).clone()}


def test_latents_are_added_in_the_size_and_batch_of_the_first(ctx: Context):
    first, second = {"samples": torch.ones(3, 4, 8, 8), "batch_index": [4, 5, 6]}, {"samples": torch.rand(1, 4, 16, 16)}
    scaled = resized(second["samples"], 8, 8, "bilinear", "center")
    (added,) = latent_math.latent_add(ctx, first, second)
    assert added["batch_index"] == [4, 5, 6]
    torch.testing.assert_close(added["samples"], (1 + scaled).expand(3, -1, -1, -1))
    torch.testing.assert_close(
        latent_math.latent_subtract(ctx, added, first)[0]["samples"], scaled.expand(3, -1, -1, -1)
    )
    assert latent_math.latent_multiply(ctx, first, -2.0)[0]["samples"].unique().tolist() == [-2.0]
    assert latent_math.latent_blend(ctx, first, numbered(1), 0.25)[0]["samples"].unique().tolist() == [0.25]


def test_between_two_latents_directions_turn_and_lengths_grow(ctx: Context):
    first, second = torch.zeros(2, 2, 1, 1), torch.zeros(2, 2, 1, 1)
    first[:, 0], second[:, 1] = 2.0, 4.0
    (mixed,) = latent_math.latent_interpolate(ctx, {"samples": first}, {"samples": second}, 0.5)
    torch.testing.assert_close(mixed["samples"].flatten(1), torch.full((2, 2), 3.0 / 2**0.5))
    (same,) = latent_math.latent_interpolate(ctx, {"samples": first}, {"samples": torch.zeros_like(first)}, 1.0)
    torch.testing.assert_close(same["samples"], first)


def test_operations_keep_directions_or_lengths(ctx: Context):
    latent = torch.randn(2, 4, 24, 24)
    (tonemap,) = latent_math.latent_operation_tonemap_reinhard(ctx, 1.0)
    (mapped,) = latent_math.latent_apply_operation(ctx, {"samples": latent}, tonemap)
    ratio = mapped["samples"] / latent
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-4, rtol=1e-4)
    assert ratio.max() < 1.0
    (sharpen,) = latent_math.latent_operation_sharpen(ctx, 3, 1.0, 0.0)
    torch.testing.assert_close(sharpen(latent), latent, atol=1e-4, rtol=1e-4)


def test_a_latent_lies_over_another_and_fades_where_it_ends_within(ctx: Context):
    below, above = {"samples": torch.zeros(1, 4, 8, 8)}, {"samples": torch.ones(1, 4, 4, 4)}
    (hard,) = compositing.latent_composite(ctx, below, above, 16, 48, 0)
    assert hard["samples"][0, 0].sum() == 2 * 4 and below["samples"].sum() == 0
    (soft,) = compositing.latent_composite(ctx, below, above, 0, 16, 16)
    assert soft["samples"][0, 0, 2:6, 0].tolist() == [0.5, 1.0, 1.0, 0.5]
    assert soft["samples"][0, 0, 3, :5].tolist() == [1.0, 1.0, 1.0, 0.5, 0.0]
    (masked,) = compositing.latent_composite_masked(ctx, below, above, 32, 0, False, torch.full((1, 2, 2), 0.5))
    assert masked["samples"][0, 0, 0].tolist() == [0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5]


def test_latents_are_cropped_cut_and_joined(ctx: Context):
    whole = {"samples": torch.arange(12.0 * 16).reshape(1, 1, 12, 16), "noise_mask": "kept"}
    (cropped,) = latent_batch.latent_crop(ctx, whole, 64, 64, 9999, 16)
    assert cropped["samples"].shape == (1, 1, 8, 8) and cropped["samples"][0, 0, 0, 0] == 2 * 16 + 8
    assert latent_batch.latent_crop(ctx, numbered(1, 4, 4), 64, 64, 8, 8)[0]["samples"].shape == (1, 4, 4, 4)
    cuts = {(1, 2): [1, 2], (-2, 9): [14, 15], (99, 3): [15], (-99, 1): [0]}
    for (index, amount), expected in cuts.items():
        assert latent_batch.latent_cut(ctx, whole, "x", index, amount)[0]["samples"][0, 0, 0].tolist() == expected
    (joined,) = latent_batch.latent_concat(ctx, numbered(2), {"samples": torch.full((1, 4, 8, 8), 7.0)}, "-y")
    assert joined["samples"].shape == (2, 4, 16, 8) and joined["samples"][1, 0, :, 0].tolist() == [7.0] * 8 + [1.0] * 8


def test_latents_turn_as_pictures_do(ctx: Context):
    latent = {"samples": torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])}
    assert latent_batch.latent_rotate(ctx, latent, "90 degrees")[0]["samples"].flatten().tolist() == [3, 1, 4, 2]
    assert latent_batch.latent_flip(ctx, latent, "y-axis: horizontally")[0]["samples"].flatten().tolist() == [
        2,
        1,
        4,
        3,
    ]


def test_batches_keep_their_places(ctx: Context):
    (both,) = latent_batch.latent_batch(ctx, numbered(2), {**numbered(2, 16, 16), "batch_index": [5, 9]})
    assert both["batch_index"] == [0, 1, 5, 9] and both["samples"].shape == (4, 4, 8, 8)
    (fixed,) = latent_batch.latent_batch_seed_behavior(ctx, both, "fixed")
    assert fixed["batch_index"] == [0, 0, 0, 0]
    assert "batch_index" not in latent_batch.latent_batch_seed_behavior(ctx, both, "random")[0]


def test_latents_are_batched_anew_across_a_list(ctx: Context):
    latents = [
        numbered(3),
        numbered(2),
        {**numbered(1, 4, 4), "batch_index": [8], "noise_mask": torch.zeros(1, 1, 2, 2)},
    ]
    (made,) = latent_batch.rebatch_latents(ctx, latents, [2])  # type: ignore[arg-type]
    assert [batch["batch_index"] for batch in made] == [[0, 1], [2, 3], [4], [8]]
    assert [len(batch["samples"]) for batch in made] == [2, 2, 1, 1]
    assert ["noise_mask" in batch for batch in made] == [False, False, False, True]
