"""Flux' nodes, from files to a latent."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.nodes.edit_models import reference_latent
from engine.nodes.flux import (
    KONTEXT_SIZES,
    clip_text_encode_flux,
    flux_disable_guidance,
    flux_guidance,
    flux_kontext_image_scale,
    flux_kontext_multi_reference_latent_method,
)  # fmt: skip
from engine.nodes.loaders import checkpoint_loader_simple, dual_clip_loader
from engine.nodes.sampling import ksampler
from engine.nodes.sd3 import empty_sd3_latent_image
from engine.workspace import Workspace
from tests.families.tiny_dit import clip_tensors, make_flux_checkpoint, save, t5_tensors, tiny_clip, tiny_t5
from tests.nodes.context import Context

PROMPT: Any = [[torch.zeros(1, 7, 48), {"pooled_output": torch.zeros(1, 24)}]]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create())


def test_a_picture_is_made_from_a_checkpoint(ctx: Context):
    make_flux_checkpoint(ctx.workspace.models / "checkpoints" / "flux.safetensors")
    model, clip, _ = checkpoint_loader_simple(ctx, "flux.safetensors")
    (positive,) = clip_text_encode_flux(ctx, clip, "fox", "a red fox in the snow", 3.0)
    assert positive[0][1]["guidance"] == 3.0
    (latent,) = empty_sd3_latent_image(ctx, 64, 48, 1)
    assert latent["samples"].shape == (1, 16, 6, 8)

    def run(prompt: Any) -> torch.Tensor:
        return ksampler(ctx, model, 1, 2, 1.0, "euler", "simple", prompt, prompt, latent, 1.0)[0]["samples"]

    first = run(positive)
    assert first.shape == (1, 16, 6, 8) and bool(torch.isfinite(first).all()) and torch.equal(first, run(positive))
    changed = [flux_guidance(ctx, positive, 1.0)[0], flux_disable_guidance(ctx, positive)[0],
               reference_latent(ctx, positive, {"samples": torch.randn(1, 16, 4, 4)})[0]]  # fmt: skip
    assert not any(torch.equal(first, run(prompt)) for prompt in changed)


def test_prompts_of_different_length_are_not_repeated(ctx: Context):
    """Repeating tokens changes joint attention: the longer prompt alone is the same as beside a shorter one."""
    make_flux_checkpoint(ctx.workspace.models / "checkpoints" / "flux.safetensors")
    model, _, _ = checkpoint_loader_simple(ctx, "flux.safetensors")
    short = [[torch.randn(1, 4, 48), {"pooled_output": torch.randn(1, 24)}]]
    long = [[torch.randn(1, 8, 48), {"pooled_output": torch.randn(1, 24)}]]
    latent = {"samples": torch.zeros(1, 16, 6, 8)}

    def run(positive: Any, negative: Any, cfg: float) -> torch.Tensor:
        return ksampler(ctx, model, 1, 1, cfg, "euler", "simple", positive, negative, latent, 1.0)[0]["samples"]

    alone = run(short, short, 1.0)
    both = run(short, long, 3.0)
    other = run(long, long, 1.0)
    torch.testing.assert_close(both, other + 3.0 * (alone - other), rtol=1e-4, atol=1e-4)


def test_text_encoders_are_told_apart_by_what_is_in_their_files(ctx: Context):
    folder = ctx.workspace.models / "text_encoders"
    save(clip_tensors(tiny_clip("l")), folder / "b.safetensors")
    save(t5_tensors(tiny_t5()), folder / "a.safetensors")
    for names in (("a.safetensors", "b.safetensors"), ("b.safetensors", "a.safetensors")):
        (clip,) = dual_clip_loader(ctx, *names, "flux")
        assert clip.names == ("l", "t5xxl")


def test_options_are_put_on_copies(ctx: Context):
    assert flux_guidance(ctx, PROMPT, 2.0)[0][0][1]["guidance"] == 2.0
    assert flux_disable_guidance(ctx, PROMPT)[0][0][1]["guidance"] is None
    (once,) = reference_latent(ctx, PROMPT, {"samples": torch.zeros(1)})
    (twice,) = reference_latent(ctx, once, {"samples": torch.ones(1)})
    assert [len(p[0][1].get("reference_latents", ())) for p in (PROMPT, once, twice)] == [0, 1, 2]
    assert reference_latent(ctx, once)[0] is once
    (placed,) = flux_kontext_multi_reference_latent_method(ctx, twice, "index")
    assert placed[0][1]["reference_latents_method"] == "index" and "reference_latents_method" not in twice[0][1]


def test_pictures_for_kontext_get_the_nearest_of_its_sizes(ctx: Context):
    sizes = {(512, 512): (1024, 1024), (1080, 1920): (752, 1392), (100, 30): (1568, 672)}
    for (height, width), expected in sizes.items():
        (scaled,) = flux_kontext_image_scale(ctx, torch.rand(1, height, width, 3))
        assert tuple(scaled.shape[1:3]) == expected
    assert all(width * height % 256 == 0 for width, height in KONTEXT_SIZES)
