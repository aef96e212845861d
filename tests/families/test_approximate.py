"""Small stand-ins for VAEs: their files, their scale, loaded by VAELoader and shown as previews."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import load_file, save_file

from engine.errors import NotFound
from engine.families import approximate
from engine.families.parts.tiny_vae import IncompleteHalf
from engine.graph.context import CallContext, RunContext
from engine.nodes.loaders import _vae_digest, checkpoint_loader_simple, vae_loader
from engine.nodes.vae import vae_decode, vae_encode
from engine.sampling.preview import latent_to_image, previewer
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.nodes.context import Context


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Workspace(tmp_path).create())


def tiny(channels: int = 4) -> AutoencoderTiny:
    torch.manual_seed(0)
    wide: Any = (8,) * 4
    return AutoencoderTiny(
        encoder_block_out_channels=wide, decoder_block_out_channels=wide, latent_channels=channels
    ).eval()


def save_pair(ctx: Context, name: str = "taesd", channels: int = 4) -> AutoencoderTiny:
    """In the layout of the first code: a list of layers each, the decoder's behind a clamp."""
    net, folder = tiny(channels), ctx.workspace.models / "vae_approx"
    for part, shift in (("encoder", 0), ("decoder", 1)):
        tensors = {}
        for key, tensor in net.get_submodule(part).state_dict().items():
            _, place, rest = key.split(".", 2)
            tensors[f"{int(place) + shift}.{rest}"] = tensor
        save_file(tensors, folder / f"{name}_{part}.safetensors")
    return net


def test_a_stand_in_is_listed_when_both_halves_are_there(ctx: Context):
    assert approximate.vae_names(ctx.workspace) == []
    save_pair(ctx)
    assert approximate.vae_names(ctx.workspace) == ["taesd"]
    (ctx.workspace.models / "vae_approx" / "taesd_decoder.safetensors").unlink()
    assert approximate.vae_names(ctx.workspace) == []
    with pytest.raises(NotFound, match="taesd_decoder"):
        vae_loader(ctx, "taesd")


@pytest.mark.parametrize(
    ("name", "channels", "scale", "shift"), [("taesd", 4, 0.18215, 0.0), ("taef1", 16, 0.3611, 0.1159)]
)
def test_latents_are_in_the_scale_of_the_familys_own_vae(
    ctx: Context, name: str, channels: int, scale: float, shift: float
):
    net = save_pair(ctx, name, channels)
    (vae,) = vae_loader(ctx, name)
    assert vae.factor == 8 and vae.latent.channels == channels
    latent = torch.randn(1, channels, 4, 6)
    with torch.no_grad():
        expected = (net.decoder((latent - shift) * scale)[0] + 1) / 2
    (picture,) = vae_decode(ctx, {"samples": latent}, vae)
    torch.testing.assert_close(picture[0], expected.clamp(0, 1).movedim(0, -1), atol=1e-5, rtol=1e-5)
    image = torch.rand(1, 32, 48, 3)
    (encoded,) = vae_encode(ctx, image, vae)
    with torch.no_grad():
        theirs = net.encoder(image.movedim(-1, 1) * 2 - 1) / scale + shift
    torch.testing.assert_close(encoded["samples"], theirs, atol=1e-5, rtol=1e-5)


def test_diffusers_file_of_both_halves_is_the_same(ctx: Context):
    net = save_pair(ctx)
    latent = {"samples": torch.randn(1, 4, 4, 4)}
    (pair,) = vae_decode(ctx, latent, vae_loader(ctx, "taesd")[0])
    save_file(net.state_dict(), ctx.workspace.models / "vae_approx" / "taesd.safetensors")
    (single,) = vae_decode(ctx, latent, vae_loader(ctx, "taesd")[0])
    assert torch.equal(single, pair)


def test_other_files_under_the_name_are_told(ctx: Context):
    save_pair(ctx)
    folder = ctx.workspace.models / "vae_approx"
    tensors = load_file(folder / "taesd_decoder.safetensors")
    save_file(
        {name: t for name, t in tensors.items() if not name.startswith("10.")}, folder / "taesd_decoder.safetensors"
    )
    (vae,) = vae_loader(ctx, "taesd")
    with pytest.raises(IncompleteHalf, match=r"layers\.9\."):
        vae_decode(ctx, {"samples": torch.zeros(1, 4, 2, 2)}, vae)
    save_file({"x": torch.ones(1)}, folder / "taesd_decoder.safetensors")
    with pytest.raises(approximate.NotApproximate, match="decoder"):
        vae_loader(ctx, "taesd")


def test_a_replaced_half_is_another_vae(ctx: Context):
    save_pair(ctx)
    before = _vae_digest(ctx, "taesd")
    path = ctx.workspace.models / "vae_approx" / "taesd_encoder.safetensors"
    save_file({**load_file(path), "more": torch.ones(1)}, path)
    assert _vae_digest(ctx, "taesd") != before


def test_previews_are_of_the_method_that_is_asked_for(ctx: Context):
    make_tiny_sd1(ctx.workspace.models / "checkpoints" / "tiny.safetensors")
    model, _, _ = checkpoint_loader_simple(ctx, "tiny.safetensors")
    latent = torch.randn(2, 4, 6, 5)

    def shown(method: str) -> Any:
        return previewer(ctx.models, ctx.workspace, model, method)(latent)

    plain = latent_to_image(latent, model.latent)
    assert plain is not None and shown("none") is None
    assert all(shown(method).tobytes() == plain.tobytes() for method in ("auto", "latent2rgb", "taesd"))
    save_pair(ctx)
    assert (shown("taesd").size, shown("auto").size) == ((40, 48), (5, 6))


def test_the_method_comes_with_the_prompt(ctx: Context):
    def asked(method: Any) -> str:
        run = RunContext("id", ctx.workspace, ctx.models, extra_data={"preview_method": method})
        context: Any = CallContext
        return context(run, {}, 0, lambda step, total: None, None, lambda en, zh: None).preview_method

    assert [asked(m) for m in ("taesd", "none", "default", 7, None)] == ["taesd", "none", "auto", "auto", "auto"]
