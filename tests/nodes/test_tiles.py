"""Pictures worked through in tiles: where tiles lie, what comes of them, and when they are used by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.families.base import Vae
from engine.models.device import FakeDevice
from engine.models.manager import ModelManager, NoRoom
from engine.nodes import vae as nodes
from engine.nodes.loaders import checkpoint_loader_simple
from engine.nodes.tiling import count, places, tiled
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.nodes.context import Context


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path).create()
    make_tiny_sd1(workspace.models / "checkpoints" / "tiny.safetensors")
    return Context(workspace)


def tiny_vae(ctx: Context) -> Vae:
    return checkpoint_loader_simple(ctx, "tiny.safetensors")[2]


def test_tiles_cover_a_side_and_overlap():
    assert places((10, 8), (4, 8), 1) == [(0, 0), (3, 0), (6, 0)]
    assert places((11, 3), (4, 4), 1) == [(0, 0), (3, 0), (6, 0), (9, 0)]
    assert count((2, 4, 10, 8), (4, 8), 1) == 6


@pytest.mark.parametrize("shape", [(5, 5), (16, 9), (9, 33)])
def test_tiles_of_what_looks_at_single_cells_make_the_whole(shape: tuple[int, int]):
    whole = torch.randn(2, 3, *shape)
    calls: list[int] = []

    def doubled(part: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(part, scale_factor=2)[:, :2]

    made = tiled(whole, doubled, (8, 8), 3, 2, 2, lambda: calls.append(1))
    torch.testing.assert_close(made, doubled(whole))
    assert len(calls) == count(whole.shape, (8, 8), 3)


def test_decoding_in_tiles_is_near_the_whole_and_exact_where_one_fits(ctx: Context):
    vae, samples = tiny_vae(ctx), {"samples": torch.randn(1, 4, 40, 24)}
    (whole,) = nodes.vae_decode(ctx, samples, vae)
    (large,) = nodes.vae_decode_tiled(ctx, samples, vae, 512, 64, 64, 8)
    torch.testing.assert_close(large, whole, atol=1e-5, rtol=0)
    (small,) = nodes.vae_decode_tiled(ctx, samples, vae, 64, 64, 64, 8)
    assert small.shape == whole.shape and 0 < float((small - whole).abs().mean()) < 0.1


def test_encoding_in_tiles_is_near_the_whole(ctx: Context):
    vae, picture = tiny_vae(ctx), torch.rand(2, 97, 161, 4)
    (whole,), (parts,) = (
        nodes.vae_encode(ctx, picture, vae),
        nodes.vae_encode_tiled(ctx, picture, vae, 64, 4096, 64, 8),
    )
    assert parts["samples"].shape == whole["samples"].shape == (2, 4, 24, 40)
    difference = (parts["samples"] - whole["samples"]).abs().mean() / whole["samples"].abs().mean()
    assert 0 < float(difference) < 0.5


def test_progress_counts_every_tile(ctx: Context, monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(ctx, "progress", lambda step, total: told.append((step, total)))
    nodes.vae_decode_tiled(ctx, {"samples": torch.randn(1, 4, 32, 32)}, tiny_vae(ctx), 64, 16, 64, 8)
    assert told[-1][0] == told[-1][1] == len(told) > 3


def test_what_does_not_fit_as_a_whole_is_done_in_tiles(ctx: Context, caplog: pytest.LogCaptureFixture):
    samples, picture = {"samples": torch.randn(1, 4, 160, 8)}, torch.rand(1, 32, 640, 3)
    (whole,) = nodes.vae_decode(ctx, samples, tiny_vae(ctx))
    room = nodes._working(ctx, 512 * 512, nodes.DECODE_WORKING)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(nodes, "SPARE_TILE", 64)
    monkey.setattr(nodes, "SPARE_OVERLAP", 16)
    try:
        ctx.models = ModelManager(FakeDevice(room // 50))
        (tiles,) = nodes.vae_decode(ctx, samples, tiny_vae(ctx))
        assert nodes.vae_encode(ctx, picture, tiny_vae(ctx))[0]["samples"].shape == (1, 4, 8, 160)
    finally:
        monkey.undo()
    assert tiles.shape == whole.shape and "in tiles" in caplog.text
    ctx.models = ModelManager(FakeDevice(1000))
    with pytest.raises(NoRoom):
        nodes.vae_decode(ctx, samples, tiny_vae(ctx))


def test_a_latent_of_another_vae_is_refused_in_tiles_as_well(ctx: Context):
    with pytest.raises(nodes.WrongLatent, match="16"):
        nodes.vae_decode_tiled(ctx, {"samples": torch.zeros(1, 16, 8, 8)}, tiny_vae(ctx), 64, 16, 64, 8)
