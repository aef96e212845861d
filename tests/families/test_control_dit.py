"""ControlNets of Flux and SD3 in every layout of their files, against diffusers' own classes."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
from diffusers.models.controlnets.controlnet_sd3 import SD3ControlNetModel
from torch import Tensor, nn

from engine.families.base import Model, TextBatch
from engine.families.controls.base import ControlNet, Residuals, UnknownControlType
from engine.families.controls.discover import load_controlnet
from engine.families.discover import detect_denoiser
from engine.families.flux import Flux
from engine.families.parts.control_dit import build_flux, build_sd3
from engine.families.sd3 import SD3 as SD3Family
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.weights.control_dit import flux_control_config, sd3_control_config
from engine.weights.header import TensorInfo, read_header
from tests.families.tiny_control_dit import (
    stability_tensors,
    tiny_flux_control,
    tiny_sd3_control,
    tiny_stability,
    xlabs_tensors,
)
from tests.families.tiny_dit import SD3, in_file_layout, save, tiny_flux, tiny_sd3

TIME = torch.tensor([0.7, 0.7])
FOUR: dict[str, Any] = {"num_layers": 4}


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def flux_text() -> TextBatch:
    return TextBatch(numbers(2, 7, 48, seed=1), numbers(2, 24, seed=2), {"guidance": torch.tensor([3.0, 3.0])})


def sd3_text() -> TextBatch:
    return TextBatch(numbers(2, 7, 48, seed=1), numbers(2, 64, seed=2))


def packed(x: Tensor) -> Tensor:
    """Flux' tokens of latents, as BFL's paper has them: 2 x 2 cells each."""
    b, c, h, w = x.shape
    return torch.stack(
        [x[:, :, i : i + 2, j : j + 2].reshape(b, c * 4) for i in range(0, h, 2) for j in range(0, w, 2)], dim=1
    )


def ids(h: int, w: int) -> Tensor:
    return torch.tensor([[0.0, i, j] for i in range(h // 2) for j in range(w // 2)])


def said_by(manager: ModelManager, net: ControlNet, denoiser: nn.Module, x: Tensor, t: Tensor, text: TextBatch, hint):
    with manager.lease(net.ref) as leased, torch.no_grad():
        return net.kind.residuals(leased[net.ref], net, denoiser, x, t, text, hint)


def flux_said(net: nn.Module, x: Tensor, hint: Tensor, mode: int | None = None) -> tuple[Any, Any]:
    text = flux_text()
    about = {"timestep": TIME, "guidance": text.extra["guidance"], "pooled_projections": text.pooled}
    about |= {"encoder_hidden_states": text.cross, "img_ids": ids(6, 8), "txt_ids": torch.zeros(7, 3)}
    if mode is not None:
        about["controlnet_mode"] = torch.full((2, 1), mode)
    with torch.no_grad():
        return net(hidden_states=packed(x), controlnet_cond=hint, **about, return_dict=False)


def flux_moved(said: Residuals, x: Tensor, double: Any, single: Any, model: nn.Module, cyclic: bool = False):
    """Our denoiser's answer under control, and that of diffusers' forward."""
    text = flux_text()
    with torch.no_grad():
        ours = Flux().predict(model, x, TIME, text, said)
        theirs = model(
            hidden_states=packed(x), timestep=TIME, guidance=text.extra["guidance"], pooled_projections=text.pooled,
            encoder_hidden_states=text.cross, img_ids=ids(6, 8), txt_ids=torch.zeros(7, 3), return_dict=False,
            controlnet_block_samples=double, controlnet_single_block_samples=single, controlnet_blocks_repeat=cyclic,
        )[0]  # fmt: skip
        assert not torch.allclose(ours, Flux().predict(model, x, TIME, text), atol=1e-3)
    torch.testing.assert_close(packed(ours), theirs, rtol=1e-4, atol=1e-5)


def test_nets_that_look_at_latents_say_what_diffusers_does(tmp_path: Path, manager: ModelManager):
    """Of three double and two single blocks for four and three: each speaks for two."""
    theirs = tiny_flux_control(num_layers=3, num_single_layers=2)
    net = load_controlnet(manager, save(theirs.state_dict(), tmp_path / "union.safetensors", None))
    assert net.latent is not None and net.latent.channels == 16 and not net.masked
    assert {m["state"] for m in manager.snapshot()["models"]} == {"file"}, "nothing but the header is read"
    model, x, hint = tiny_flux(num_layers=4, num_single_layers=3), numbers(2, 16, 6, 8), numbers(2, 16, 6, 8, seed=9)
    said = said_by(manager, net, model, x, TIME, flux_text(), hint)
    double, single = flux_said(theirs, x, packed(hint))
    torch.testing.assert_close(said["double"], [double[i] for i in (0, 0, 1, 1)], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said["single"], [single[i] for i in (0, 0, 1)], rtol=1e-4, atol=1e-5)
    flux_moved(said, x, double, single, model)


def test_a_net_of_xlabs_looks_at_pixels_and_speaks_in_turn(tmp_path: Path, manager: ModelManager):
    made = {"num_layers": 2, "num_single_layers": 0, "conditioning_embedding_channels": 16, "patch_size": 2}
    theirs = tiny_flux_control(**made)
    model, x, hint = tiny_flux(**FOUR), numbers(2, 16, 6, 8), torch.rand(2, 3, 48, 64)
    double, _ = flux_said(theirs, x, hint * 2 - 1)
    for name, tensors in (("maker", xlabs_tensors(theirs)), ("diffusers", theirs.state_dict())):
        net = load_controlnet(manager, save(tensors, tmp_path / f"{name}.safetensors", None))
        assert (net.latent, net.factor) == (None, 8)
        said = said_by(manager, net, model, x, TIME, flux_text(), hint)
        torch.testing.assert_close(said["double"], [double[i] for i in (0, 1, 0, 1)], rtol=1e-4, atol=1e-5)
        assert said["single"] == []
        flux_moved(said, x, double, None, model, cyclic=True)


def test_a_union_is_told_its_type_by_a_token(tmp_path: Path, manager: ModelManager):
    theirs = tiny_flux_control(num_mode=4)
    net = load_controlnet(manager, save(theirs.state_dict(), tmp_path / "union.safetensors", None))
    model, x, hint = tiny_flux(), numbers(2, 16, 6, 8), numbers(2, 16, 6, 8, seed=9)

    def said(*types: int) -> Tensor:
        typed = replace(net, options={"control_type": types})
        return said_by(manager, typed, model, x, TIME, flux_text(), hint)["double"][0]

    torch.testing.assert_close(said(3), flux_said(theirs, x, packed(hint), 3)[0][0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(said(3), said(0)) and not torch.allclose(said(3), said())
    with pytest.raises(UnknownControlType, match="4 types"):
        said(6)


def test_a_net_for_filling_takes_a_mask_beside_the_picture(tmp_path: Path, manager: ModelManager):
    theirs = tiny_flux_control(hint_channels=68)
    net = load_controlnet(manager, save(theirs.state_dict(), tmp_path / "inpaint.safetensors", None))
    assert net.masked
    model, x, hint = tiny_flux(), numbers(2, 16, 6, 8), numbers(2, 17, 6, 8, seed=9)
    said = said_by(manager, net, model, x, TIME, flux_text(), hint)
    torch.testing.assert_close(said["double"][1], flux_said(theirs, x, packed(hint))[0][0], rtol=1e-4, atol=1e-5)


def test_odd_sides_are_padded_as_the_latent_is(tmp_path: Path, manager: ModelManager):
    net = load_controlnet(manager, save(tiny_flux_control().state_dict(), tmp_path / "a.safetensors"))
    model, x = tiny_flux(), numbers(2, 16, 5, 7)
    said = said_by(manager, net, model, x, TIME, flux_text(), numbers(2, 16, 5, 7))
    assert said["double"][0].shape == (2, 12, 64)
    with torch.no_grad():
        assert Flux().predict(model, x, TIME, flux_text(), said).shape == x.shape


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_nets_of_sd3_say_what_diffusers_does(tmp_path: Path, manager: ModelManager, blocks: int):
    """Without the pooled text, which they were trained without. Of one, two and three blocks for four."""
    theirs, model = tiny_sd3_control(num_layers=blocks), tiny_sd3(config={**SD3, **FOUR})
    net = load_controlnet(manager, save(theirs.state_dict(), tmp_path / "canny.safetensors", None))
    assert net.latent is not None and (net.latent.shift, net.latent.scale, net.masked) == (0.0, 1.5305, False)
    x, hint, text, t = numbers(2, 16, 6, 8), numbers(2, 16, 6, 8, seed=9), sd3_text(), TIME * 1000
    said = said_by(manager, net, model, x, t, text, hint)["joint"]
    with torch.no_grad():
        expected = theirs(x, hint, 1.0, text.cross, torch.zeros(2, 64), t, return_dict=False)[0]
        dealt = {1: (0, 0, 0), 2: (0, 0, 1), 3: (0, 1, 2)}[blocks]
        torch.testing.assert_close(said[:3], [expected[i] for i in dealt], rtol=1e-4, atol=1e-5)
        ours = SD3Family().predict(model, x, t, text, {"joint": said})
        moved = model(x, text.cross, text.pooled, t, [expected[i] for i in (*dealt, dealt[-1])], return_dict=False)[0]
    torch.testing.assert_close(ours, moved, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(ours, SD3Family().predict(model, x, t, text), atol=1e-3)


@pytest.mark.parametrize("layout", ["maker", "diffusers"])
def test_stabilitys_nets_go_in_by_the_large_models_way(tmp_path: Path, manager: ModelManager, layout: str):
    theirs, model = tiny_stability(), tiny_sd3()
    tensors = stability_tensors(theirs) if layout == "maker" else theirs.state_dict()
    net = load_controlnet(manager, save(tensors, tmp_path / "sd3.5_large_controlnet_blur.safetensors", None))
    assert net.latent is not None and (net.latent.shift, net.levels) == (0.0609, (1.0, 0.0))
    x, hint, text, t = numbers(2, 16, 6, 8), numbers(2, 16, 6, 8, seed=9), sd3_text(), TIME * 1000
    said = said_by(manager, net, model, x, t, text, hint)["joint"]
    with torch.no_grad():
        start = theirs._get_pos_embed_from_transformer(model)(x)
        pooled: Any = text.pooled
        expected = theirs(start, hint, 1.0, None, pooled, t, return_dict=False)[0]
    torch.testing.assert_close(said, [expected[0]] * 2, rtol=1e-4, atol=1e-5)


def test_stabilitys_nets_say_what_their_pictures_are(tmp_path: Path, manager: ModelManager):
    tensors = stability_tensors(tiny_stability())
    for number, levels in enumerate([(1.0, 0.0), (63.75, 0.75), (-1.0, 1.0)]):
        told = {**tensors, "control_type": torch.tensor([float(number)])}
        assert load_controlnet(manager, save(told, tmp_path / "a.safetensors")).levels == levels
    for name, levels in (("canny", (63.75, 0.75)), ("depth", (-1.0, 1.0)), ("other", (1.0, 0.0))):
        assert load_controlnet(manager, save(tensors, tmp_path / f"{name}.safetensors")).levels == levels
    edges = torch.tensor([0.0, 1.0]) * 63.75 + 0.75
    torch.testing.assert_close(edges * 2 - 1, torch.tensor([0.0, 1.0]) * 255 * 0.5 + 0.5)


def models(tmp_path: Path, manager: ModelManager) -> tuple[Model, Model]:
    flux = Flux().load_denoiser(manager, save(in_file_layout(tiny_flux()), tmp_path / "flux.safetensors"))
    sd3 = SD3Family().load_denoiser(manager, save(in_file_layout(tiny_sd3()), tmp_path / "sd3.safetensors"))
    return flux, sd3


def test_nets_fit_models_of_their_family_and_sizes_only(tmp_path: Path, manager: ModelManager):
    flux, sd3 = models(tmp_path, manager)
    nets = [tiny_flux_control().state_dict(), tiny_sd3_control().state_dict(), stability_tensors(tiny_stability())]
    of_flux, of_sd3, alone = (
        load_controlnet(manager, save(t, tmp_path / f"{i}.safetensors")) for i, t in enumerate(nets)
    )
    for net, fits, other in ((of_flux, flux, sd3), (of_sd3, sd3, flux), (alone, sd3, flux)):
        title = fits.family.spec.title
        assert net.kind.problem(net, fits) == "" and net.kind.problem(net, other) == title
        wider = replace(fits, config={**fits.config, "num_attention_heads": 38})
        assert net.kind.problem(net, wider) == f"{title} of other sizes"


def test_a_net_is_no_denoiser(tmp_path: Path):
    """One of Flux has all that a transformer of Flux has but its way out."""
    for number, net in enumerate((tiny_flux_control(), tiny_sd3_control())):
        assert detect_denoiser(read_header(save(net.state_dict(), tmp_path / f"{number}.safetensors"))) is None


def test_a_net_in_fp8_says_what_its_numbers_say(tmp_path: Path, manager: ModelManager):
    fp8 = {
        name: tensor.to(torch.float8_e4m3fn) if tensor.ndim == 2 else tensor
        for name, tensor in tiny_flux_control(num_mode=4).state_dict().items()
    }
    small = load_controlnet(manager, save(fp8, tmp_path / "small.safetensors", None))
    whole = load_controlnet(manager, save({n: t.float() for n, t in fp8.items()}, tmp_path / "b.safetensors", None))
    model, x, hint = tiny_flux(), numbers(2, 16, 6, 8), numbers(2, 16, 6, 8, seed=9)
    typed = [replace(net, options={"control_type": (2,)}) for net in (small, whole)]
    ours, theirs = (said_by(manager, net, model, x, TIME, flux_text(), hint) for net in typed)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    sizes = {m["title"]: m["nbytes"] for m in manager.snapshot()["models"]}
    assert sizes["small"] < 0.4 * sizes["b"]


REAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "InstantX union": (FluxControlNetModel, {"num_layers": 5, "num_single_layers": 10, "guidance_embeds": True,
                                             "num_mode": 10}),
    "Shakker Labs": (FluxControlNetModel, {"num_layers": 6, "num_single_layers": 0, "guidance_embeds": True}),
    "XLabs": (FluxControlNetModel, {"num_layers": 2, "num_single_layers": 0, "guidance_embeds": True,
                                    "conditioning_embedding_channels": 16, "patch_size": 2}),
    "InstantX SD3": (SD3ControlNetModel, {"num_layers": 12, "num_attention_heads": 24, "pos_embed_max_size": 192,
                                          "caption_projection_dim": 1536}),
    "Alimama SD3": (SD3ControlNetModel, {"num_layers": 23, "num_attention_heads": 24, "pos_embed_max_size": 192,
                                         "caption_projection_dim": 1536, "extra_conditioning_channels": 1}),
    "SD3.5 large": (SD3ControlNetModel, {"num_layers": 19, "num_attention_heads": 38, "joint_attention_dim": None,
                                         "caption_projection_dim": 2432, "use_pos_embed": False}),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_nets_of_real_size_are_built_from_the_shapes_of_their_files(name: str):
    kind, config = REAL[name]
    with torch.device("meta"):
        shapes = {n: tuple(t.shape) for n, t in kind(**config).state_dict().items()}
    infos = {n: TensorInfo("BF16", shape) for n, shape in shapes.items()}
    found, build = {
        FluxControlNetModel: (flux_control_config, build_flux), SD3ControlNetModel: (sd3_control_config, build_sd3)
    }[kind]  # fmt: skip
    made = build(found(infos))
    assert {n: tuple(t.shape) for n, t in made.state_dict().items()} == shapes
    theirs = kind.__init__.__wrapped__ if hasattr(kind.__init__, "__wrapped__") else kind.__init__
    usual = {n: p.default for n, p in inspect.signature(theirs).parameters.items() if n != "self"}
    told = ("attention_head_dim", "num_attention_heads", "axes_dims_rope", "guidance_embeds", "num_mode", "patch_size")
    for field in told:
        if field in usual and not (name == "XLabs" and field == "patch_size"):  # which we do not read
            assert _plain(made.config[field]) == _plain({**usual, **config}[field]), field


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
