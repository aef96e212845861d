"""Flux and SD3 under control, from files to a latent: one step of the sampler against diffusers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.families.base import Model, Vae
from engine.families.controls.base import ControlNet, ControlOfOtherModel, NeedsVae, VaeOfOtherModel
from engine.nodes import controlnet
from engine.nodes.inpaint import instruct_pix_to_pix_conditioning
from engine.nodes.loaders import checkpoint_loader_simple, unet_loader, vae_loader
from engine.nodes.sampling import ksampler
from engine.workspace import Workspace
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_control_dit import (
    stability_tensors,
    tiny_flux_control,
    tiny_sd3_control,
    tiny_stability,
    xlabs_tensors,
)
from tests.families.tiny_dit import ae_tensors, in_file_layout, save, tiny_ae, tiny_flux, tiny_sd3
from tests.nodes.context import Context

Prompt = list[list[Any]]
SCALE, SHIFT = 0.3611, 0.1159  # of Flux' latents, as its makers publish them
SCALE3, SHIFT3 = 1.5305, 0.0609  # of SD3's
FACTOR = 2  # of the tiny autoencoder


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path).create()
    folder = workspace.models
    save(in_file_layout(tiny_flux()), folder / "diffusion_models" / "flux.safetensors", None)
    save(in_file_layout(tiny_flux(in_channels=128)), folder / "diffusion_models" / "canny.safetensors", None)
    save(in_file_layout(tiny_sd3()), folder / "diffusion_models" / "sd3.safetensors", None)
    save(ae_tensors(tiny_ae()), folder / "vae" / "ae.safetensors", None)
    xlabs = tiny_flux_control(num_single_layers=0, conditioning_embedding_channels=16)
    made = {
        "union": tiny_flux_control().state_dict(),
        "fill": tiny_flux_control(hint_channels=68).state_dict(),
        "xlabs": xlabs_tensors(xlabs),
        "sd3": tiny_sd3_control().state_dict(),
        "depth": stability_tensors(tiny_stability()),
    }
    for name, tensors in made.items():
        save(tensors, folder / "controlnet" / f"{name}.safetensors", None)
    return Context(workspace)


@pytest.fixture
def vae(ctx: Context) -> Vae:
    return vae_loader(ctx, "ae.safetensors")[0]


def model_of(ctx: Context, name: str) -> Model:
    return unet_loader(ctx, f"{name}.safetensors", "default")[0]


def net_of(ctx: Context, name: str) -> ControlNet:
    return controlnet.control_net_loader(ctx, f"{name}.safetensors")[0]


def picture() -> Tensor:
    return torch.rand(1, 12, 16, 3, generator=torch.Generator().manual_seed(3))


def prompt(pooled: int = 24) -> Prompt:
    generator = torch.Generator().manual_seed(1)
    cross = torch.randn(1, 7, 48, generator=generator)
    return [[cross, {"pooled_output": torch.randn(1, pooled, generator=generator), "guidance": 2.0}]]


def one_step(ctx: Context, model: Model, positive: Prompt) -> Tensor:
    latent = {"samples": torch.zeros(1, 16, 6, 8)}
    return ksampler(ctx, model, 5, 1, 1.0, "euler", "simple", positive, positive, latent, 1.0)[0]["samples"]


def noise() -> Tensor:
    return torch.randn(1, 16, 6, 8, generator=torch.manual_seed(5))


def encoded(pixels: Tensor) -> Tensor:
    """By diffusers' own autoencoder: the mean."""
    with torch.no_grad():
        return tiny_ae().encode(pixels.movedim(-1, 1) * 2 - 1).latent_dist.mean  # type: ignore[union-attr]


def packed(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    cells = [x[:, :, i : i + 2, j : j + 2].reshape(b, c * 4) for i in range(0, h, 2) for j in range(0, w, 2)]
    return torch.stack(cells, dim=1)


ABOUT = {
    "img_ids": torch.tensor([[0.0, i, j] for i in range(3) for j in range(4)]),
    "txt_ids": torch.zeros(7, 3),
    "timestep": torch.tensor([1.0]),
    "guidance": torch.tensor([2.0]),
    "return_dict": False,
}


def flux_step(hint: Tensor | None, net: Any = None, beside: Tensor | None = None) -> Tensor:
    """The clean latent's tokens of one step from noise: noise minus velocity."""
    ((cross, options),) = prompt()
    about = {**ABOUT, "encoder_hidden_states": cross, "pooled_projections": options["pooled_output"]}
    tokens = packed(noise())
    with torch.no_grad():
        said = net(hidden_states=tokens, controlnet_cond=hint, **about) if net is not None else (None, None)
        model = tiny_flux() if beside is None else tiny_flux(in_channels=128)
        seen = tokens if beside is None else torch.cat([tokens, packed(beside)], dim=2)
        return (
            tokens - model(seen, **about, controlnet_block_samples=said[0], controlnet_single_block_samples=said[1])[0]
        )


def under(ctx: Context, name: str, vae: Vae | None, entries: Prompt, image: Tensor | None = None) -> Prompt:
    shown = picture() if image is None else image
    return controlnet.control_net_apply_advanced(ctx, entries, entries, net_of(ctx, name), shown, 1.0, 0.0, 1.0, vae)[0]


def same_tokens(made: Tensor, tokens: Tensor) -> None:
    torch.testing.assert_close(packed((made - SHIFT) * SCALE), tokens, rtol=1e-4, atol=1e-4)


def test_a_net_is_shown_the_latent_of_its_picture(ctx: Context, vae: Vae):
    made = one_step(ctx, model_of(ctx, "flux"), under(ctx, "union", vae, prompt()))
    hint = packed((encoded(picture()) - SHIFT) * SCALE)
    same_tokens(made, flux_step(hint, tiny_flux_control()))
    larger = picture().repeat_interleave(3, 1).repeat_interleave(3, 2)
    torch.testing.assert_close(one_step(ctx, model_of(ctx, "flux"), under(ctx, "union", vae, prompt(), larger)), made)
    assert not torch.allclose(made, one_step(ctx, model_of(ctx, "flux"), prompt()), atol=1e-3)


def test_a_net_of_xlabs_is_shown_pixels_and_needs_no_vae(ctx: Context, vae: Vae):
    image = torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(3))
    theirs = tiny_flux_control(num_single_layers=0, conditioning_embedding_channels=16, patch_size=2)
    expected = flux_step(image.movedim(-1, 1) * 2 - 1, theirs)
    for given in (None, vae):
        same_tokens(one_step(ctx, model_of(ctx, "flux"), under(ctx, "xlabs", given, prompt(), image)), expected)
    (old,) = controlnet.control_net_apply(ctx, prompt(), net_of(ctx, "xlabs"), image, 1.0)
    same_tokens(one_step(ctx, model_of(ctx, "flux"), old), expected)


def test_a_net_for_filling_is_shown_the_mask(ctx: Context, vae: Vae):
    mask = torch.zeros(1, 12, 16)
    mask[:, :, 8:] = 1.0
    entries, net = prompt(), net_of(ctx, "fill")
    made, _ = controlnet.control_net_inpainting_alimama_apply(
        ctx, entries, entries, net, vae, picture(), mask, 1.0, 0.0, 1.0
    )
    kept = torch.ones(1, 1, 6, 8)
    kept[..., 4:] = 0.0
    hint = torch.cat([(encoded(picture() * (1 - mask[..., None])) - SHIFT) * SCALE, kept], dim=1)
    theirs = tiny_flux_control(hint_channels=68)
    same_tokens(one_step(ctx, model_of(ctx, "flux"), made), flux_step(packed(hint), theirs))
    whole = torch.cat([(encoded(picture()) - SHIFT) * SCALE, torch.ones(1, 1, 6, 8)], dim=1)
    plain = one_step(ctx, model_of(ctx, "flux"), under(ctx, "fill", vae, entries))
    same_tokens(plain, flux_step(packed(whole), theirs))


def test_models_made_for_a_control_picture_see_it_beside_the_latent(ctx: Context, vae: Vae):
    """flux1-canny-dev and -depth-dev: checkpoints of twice the channels, with InstructPixToPixConditioning."""
    model = model_of(ctx, "canny")
    assert model.config["in_channels"] == 128
    positive, _, latent = instruct_pix_to_pix_conditioning(ctx, prompt(), prompt(), vae, picture())
    assert torch.equal(latent["samples"], torch.zeros(1, 16, 6, 8))
    expected = flux_step(None, beside=(encoded(picture()) - SHIFT) * SCALE)
    same_tokens(one_step(ctx, model, positive), expected)
    assert not torch.allclose(one_step(ctx, model, positive), one_step(ctx, model, prompt()), atol=1e-3)


@pytest.mark.parametrize("name", ["sd3", "depth"])
def test_nets_of_sd3_are_shown_latents_as_they_were_trained(ctx: Context, vae: Vae, name: str):
    """InstantX' without the shift and the pooled text; Stability's for depth with both, its picture inverted."""
    ((cross, options),) = prompt(64)
    hint = encoded(picture()) * SCALE3 if name == "sd3" else (encoded(1 - picture()) - SHIFT3) * SCALE3
    x, t, pooled, model = noise(), torch.tensor([1000.0]), options["pooled_output"], tiny_sd3()
    with torch.no_grad():
        if name == "sd3":
            said = tiny_sd3_control()(x, hint, 1.0, cross, torch.zeros_like(pooled), t, return_dict=False)[0]
        else:
            theirs: Any = tiny_stability()
            start = theirs._get_pos_embed_from_transformer(model)(x)
            said = theirs(start, hint, 1.0, None, pooled, t, return_dict=False)[0]
        expected = x - model(x, cross, pooled, t, said, return_dict=False)[0]
    made = one_step(ctx, model_of(ctx, "sd3"), under(ctx, name, vae, prompt(64)))
    torch.testing.assert_close((made - SHIFT3) * SCALE3, expected, rtol=1e-4, atol=1e-4)


def test_what_does_not_go_together_is_named(ctx: Context, vae: Vae):
    flux, sd3 = model_of(ctx, "flux"), model_of(ctx, "sd3")
    with pytest.raises(NeedsVae, match="VAE input") as needs:
        one_step(ctx, flux, under(ctx, "union", None, prompt()))
    assert "VAE" in needs.value.zh
    with pytest.raises(ControlOfOtherModel, match=r"union is for Flux\.1, but sd3 transformer is Stable Diffusion 3"):
        one_step(ctx, sd3, under(ctx, "union", vae, prompt(64)))
    with pytest.raises(ControlOfOtherModel, match=r"sd3 is for Stable Diffusion 3, but flux transformer is Flux\.1"):
        one_step(ctx, flux, under(ctx, "sd3", vae, prompt()))
    make_tiny_sd1(ctx.workspace.models / "checkpoints" / "tiny.safetensors")
    _, _, other = checkpoint_loader_simple(ctx, "tiny.safetensors")
    with pytest.raises(VaeOfOtherModel, match=r"latents of 16 channels, but .* makes them of 4.*VAE of Flux\.1"):
        one_step(ctx, flux, under(ctx, "union", other, prompt()))
