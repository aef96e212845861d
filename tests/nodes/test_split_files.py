"""A denoiser, its text encoders and its VAE, each alone in a file."""

from pathlib import Path

import pytest
import torch

from engine.families.clip_types import clip_types, dual_clip_types
from engine.families.discover import UnknownFamily, UnknownTextEncoders
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.loaders import checkpoint_loader_simple, clip_loader, dual_clip_loader, unet_loader
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1, part_alone
from tests.nodes.context import Context


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create())


def place(ctx: Context, folder: str, name: str) -> Path:
    return ctx.workspace.models / folder / name


@pytest.mark.parametrize("keep", ["", "model.diffusion_model."])
def test_a_unet_alone_is_the_one_of_its_checkpoint(ctx: Context, keep: str):
    whole = make_tiny_sd1(place(ctx, "checkpoints", "tiny.safetensors"))
    part_alone(whole, place(ctx, "diffusion_models", "unet.safetensors"), "model.diffusion_model.", keep=keep)
    expected, _, _ = checkpoint_loader_simple(ctx, "tiny.safetensors")
    (model,) = unet_loader(ctx, "unet.safetensors", "default")
    assert (model.family.spec.name, model.prediction, model.latent) == ("sd1", "eps", expected.latent)
    assert same(ctx, model.ref, expected.ref)


def test_a_unet_in_diffusers_names_is_known(ctx: Context):
    whole = make_tiny_sd1(place(ctx, "checkpoints", "tiny.safetensors"), diffusers_keys=True)
    part_alone(whole, place(ctx, "diffusion_models", "unet.safetensors"), "unet.")
    expected, _, _ = checkpoint_loader_simple(ctx, "tiny.safetensors")
    (model,) = unet_loader(ctx, "unet.safetensors", "default")
    assert same(ctx, model.ref, expected.ref)


@pytest.mark.parametrize(("name", "dtype"), [("fp8_e4m3fn", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)])
def test_weights_in_fp8_have_its_values(ctx: Context, name: str, dtype: torch.dtype):
    whole = make_tiny_sd1(place(ctx, "checkpoints", "tiny.safetensors"))
    part_alone(whole, place(ctx, "diffusion_models", "unet.safetensors"), "model.diffusion_model.")
    (plain,), (small,) = (unet_loader(ctx, "unet.safetensors", kind) for kind in ("default", name))
    with ctx.models.lease(plain.ref, small.ref) as leased:
        ours, theirs = leased[small.ref].state_dict(), leased[plain.ref].state_dict()
        assert all(torch.equal(ours[key], theirs[key].to(dtype).to(ours[key].dtype)) for key in theirs)
        assert not all(torch.equal(ours[key].float(), theirs[key]) for key in theirs)
        assert {t.dtype for name, t in ours.items() if name.endswith("to_q.weight")} == {dtype}, "and take its room"


@pytest.mark.parametrize("keep", ["text_model.", ""])
def test_a_text_encoder_alone_encodes_as_its_checkpoint(ctx: Context, keep: str):
    whole = make_tiny_sd1(place(ctx, "checkpoints", "tiny.safetensors"))
    prefix = "cond_stage_model.transformer.text_model."
    part_alone(whole, place(ctx, "text_encoders", "clip.safetensors"), prefix, keep=keep)
    _, expected, _ = checkpoint_loader_simple(ctx, "tiny.safetensors")
    (clip,) = clip_loader(ctx, "clip.safetensors", "stable_diffusion")
    ((((cross, _),),), (((wanted, _),),)) = (clip_text_encode(ctx, "a (red:1.2) cat", c) for c in (clip, expected))
    assert torch.equal(cross, wanted)


def test_what_is_no_denoiser_or_text_encoder_is_refused(ctx: Context):
    whole = make_tiny_sd1(place(ctx, "checkpoints", "tiny.safetensors"))
    for folder in ("diffusion_models", "text_encoders"):
        part_alone(whole, place(ctx, folder, "vae.safetensors"), "first_stage_model.")
    with pytest.raises(UnknownFamily, match="vae"):
        unet_loader(ctx, "vae.safetensors", "default")
    with pytest.raises(UnknownTextEncoders, match="stable_diffusion"):
        clip_loader(ctx, "vae.safetensors", "stable_diffusion")
    with pytest.raises(UnknownTextEncoders, match="flux"):
        dual_clip_loader(ctx, "vae.safetensors", "vae.safetensors", "flux")


def test_types_are_those_of_families_that_are_here(ctx: Context):
    assert "stable_diffusion" in clip_types(ctx.workspace) and "wan" not in clip_types(ctx.workspace)
    assert set(dual_clip_types(ctx.workspace)) <= {"sdxl", "sd3", "flux"}


def same(ctx: Context, one: object, other: object) -> bool:
    with ctx.models.lease(one, other) as leased:  # type: ignore[arg-type]
        ours, theirs = (leased[ref].state_dict() for ref in (one, other))  # type: ignore[index]
        return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
