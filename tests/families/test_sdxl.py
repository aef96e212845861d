"""SD 2.x, SDXL and its refiner: every layout loads to the same module, and what goes in is what diffusers' own
pipelines would put in."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModelWithProjection

from engine.families.base import Components, Model, TextBatch
from engine.families.discover import detect, detect_denoiser, family_of, family_of_clip, family_of_denoiser
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.weights.header import Header, TensorInfo, read_header
from engine.weights.load import open_header
from tests.families.tiny_unets import (
    REFINER,
    SD2,
    SDXL,
    H,
    L,
    Tiny,
    make_tiny,
    make_tiny_folder,
    tiny_unet_modules,
    transformers_tensors,
)

LAYOUTS = Path(__file__).parents[1] / "parity" / "layouts"
FAMILIES = [("sd2", SD2), ("sdxl", SDXL), ("sdxl_refiner", REFINER)]


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


def load(manager: ModelManager, path: Path) -> Components:
    return family_of(open_header(path)).load_checkpoint(manager, path)


def equal(module: nn.Module, other: nn.Module) -> bool:
    """Same weights under the same names; our text encoders have no `text_model.` and keep OpenCLIP's projection."""
    ours = dict(module.state_dict())
    theirs = {name.removeprefix("text_model."): tensor for name, tensor in other.state_dict().items()}
    if "text_projection" in ours:
        ours["text_projection.weight"] = ours.pop("text_projection").T
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("names", ["ldm", "diffusers"])
@pytest.mark.parametrize(("family", "tiny"), FAMILIES)
def test_weights_of_every_layout_arrive_in_their_modules(
    tmp_path: Path, manager: ModelManager, family: str, tiny: Tiny, names: Any
):
    path = make_tiny(tmp_path / "a.safetensors", tiny, names=names)
    loaded, real = load(manager, path), tiny_unet_modules(tiny)
    found = detect(read_header(path))
    assert found is not None and (found.family, found.layout, found.prediction) == (family, names, "eps")
    assert loaded.clip.names == tuple(encoder.name for encoder in tiny.encoders)
    refs = (loaded.model.ref, loaded.vae.ref, *loaded.clip.refs)
    with manager.lease(*refs) as leased:
        for ref, module in zip(refs, (real.unet, real.vae, *real.texts), strict=True):
            assert equal(leased[ref], module), ref


@pytest.mark.parametrize(("family", "tiny"), FAMILIES)
def test_a_folder_of_diffusers_is_a_checkpoint(tmp_path: Path, manager: ModelManager, family: str, tiny: Tiny):
    folder, real = make_tiny_folder(tmp_path / "folder", tiny), tiny_unet_modules(tiny)
    loaded = load(manager, folder)
    assert loaded.model.family.spec.name == family
    with manager.lease(loaded.model.ref, *loaded.clip.refs) as leased:
        assert equal(leased[loaded.model.ref], real.unet)
        assert all(equal(leased[ref], text) for ref, text in zip(loaded.clip.refs, real.texts, strict=True))


@pytest.mark.parametrize(("family", "tiny"), FAMILIES)
def test_a_denoiser_alone_is_told_from_others(tmp_path: Path, manager: ModelManager, family: str, tiny: Tiny):
    parts = (("model.diffusion_model.", "ldm"), ("unet.", "diffusers"))
    for prefix, names in parts:
        whole = make_tiny(tmp_path / "whole.safetensors", tiny, names=cast(Any, names))
        tensors = {k.removeprefix(prefix): v for k, v in load_file(whole).items() if k.startswith(prefix)}
        path = tmp_path / f"{names}.safetensors"
        save_file(tensors, path, dict(read_header(whole).metadata))
        model = family_of_denoiser(read_header(path)).load_denoiser(manager, path)
        assert model.family.spec.name == family
        with manager.lease(model.ref) as leased:
            assert equal(leased[model.ref], tiny_unet_modules(tiny).unet)


def test_the_layout_of_the_real_sdxl_is_known():
    layout = json.loads(gzip.decompress((LAYOUTS / "sdxl.json.gz").read_bytes()))
    tensors = {name: TensorInfo("F16", tuple(shape)) for name, shape in layout}
    header = Header(Path("sdxl.safetensors"), tensors, {}, 0, "digest")
    found = detect(header)
    assert found is not None
    assert (found.family, found.defaults.width, found.factor, found.prediction) == ("sdxl", 1024, 8, "eps")
    family = family_of(header)
    assert family.spec.latent.scale == 0.13025
    assert detect_denoiser(header) is not None


def test_a_prompt_is_what_transformers_makes_of_both_encoders(tmp_path: Path, manager: ModelManager):
    loaded, real = load(manager, make_tiny(tmp_path / "a.safetensors", SDXL)), tiny_unet_modules(SDXL)
    clip = loaded.clip
    got = encode(manager, loaded, "a red cat")
    tokens = clip.tokenizers[0].encode("a red cat")
    start, end = clip.tokenizers[0].start, clip.tokenizers[0].end
    wanted = []
    for text, pad in zip(real.texts, (end, 0), strict=True):
        ids = torch.tensor([[start, *tokens, end, *[pad] * (75 - len(tokens))]])
        with torch.no_grad():
            wanted.append(text(ids, output_hidden_states=True))
    torch.testing.assert_close(got.cross, torch.cat([out.hidden_states[-2] for out in wanted], dim=-1))
    torch.testing.assert_close(got.pooled, wanted[1].text_embeds)


def test_captions_of_training_are_prompts_without_weights(tmp_path: Path, manager: ModelManager):
    loaded = load(manager, make_tiny(tmp_path / "a.safetensors", SDXL))
    with manager.lease(*loaded.clip.refs) as leased, torch.no_grad():
        modules = [leased[ref] for ref in loaded.clip.refs]
        captions = loaded.clip.family.encode_captions(modules, loaded.clip, ["a red cat", "a dog"])
    one = encode(manager, loaded, "a red cat")
    torch.testing.assert_close(captions.cross[:1], one.cross)
    torch.testing.assert_close(captions.pooled[:1] if captions.pooled is not None else None, one.pooled)


def test_texts_of_their_own_are_brought_to_equal_lengths(tmp_path: Path, manager: ModelManager):
    loaded = load(manager, make_tiny(tmp_path / "a.safetensors", SDXL))
    both = encode(manager, loaded, {"g": "cat " * 75 + "dog", "l": "a red cat"})
    assert both.cross.shape == (1, 154, 48)
    torch.testing.assert_close(both.cross[:, :77, :16], encode(manager, loaded, "a red cat").cross[..., :16])
    torch.testing.assert_close(both.cross[:, 77:, :16], encode(manager, loaded, "").cross[..., :16])
    torch.testing.assert_close(both.cross[:, 77:, 16:], encode(manager, loaded, "dog").cross[..., 16:])
    assert loaded.clip.family.draft_prompt(loaded.clip, {"g": "cat " * 76, "l": ""}).cross.shape == both.cross.shape


@pytest.mark.parametrize(("skip", "state", "normed"), [(-1, -1, False), (-3, -3, False), (-24, -1, True)])
def test_clip_skip_acts_on_both_encoders(tmp_path: Path, manager: ModelManager, skip: int, state: int, normed: bool):
    """The pooled text is always the last layer's. -24 is more than CLIP-L has, which means its last state, normed."""
    loaded, real = load(manager, make_tiny(tmp_path / "a.safetensors", SDXL)), tiny_unet_modules(SDXL)
    clip = replace(loaded.clip, stop_at_layer=skip)
    got = encode(manager, replace(loaded, clip=clip), "")
    ids = torch.tensor([[clip.tokenizers[0].start, *[clip.tokenizers[0].end] * 76]])
    with torch.no_grad():
        out = real.texts[0](ids, output_hidden_states=True)
    wanted = real.texts[0].final_layer_norm(out.hidden_states[state]) if normed else out.hidden_states[state]
    torch.testing.assert_close(got.cross[..., :16], wanted)
    torch.testing.assert_close(got.pooled, encode(manager, loaded, "").pooled)


def test_sd2_reads_the_layer_before_the_last_normed(tmp_path: Path, manager: ModelManager):
    loaded, real = load(manager, make_tiny(tmp_path / "a.safetensors", SD2)), tiny_unet_modules(SD2)
    text = cast(CLIPTextModelWithProjection, real.texts[0])
    tokenizer = loaded.clip.tokenizers[0]
    ids = torch.tensor([[tokenizer.start, *tokenizer.encode("a cat"), tokenizer.end, *[0] * 73]])
    with torch.no_grad():
        out = text(ids, output_hidden_states=True)
        wanted = text.text_model.final_layer_norm(out.hidden_states[-2])
    got = encode(manager, loaded, "a cat")
    torch.testing.assert_close(got.cross, wanted)
    torch.testing.assert_close(got.pooled, out.text_embeds)


def test_the_layer_that_diffusers_leaves_out_of_sd2_is_not_counted(tmp_path: Path, manager: ModelManager):
    whole = load(manager, make_tiny(tmp_path / "a.safetensors", SD2, names="diffusers"))
    tensors = load_file(tmp_path / "a.safetensors")
    cut = {k: v for k, v in tensors.items() if ".layers.23." not in k and "text_projection" not in k}
    save_file(cut, tmp_path / "b.safetensors", dict(read_header(tmp_path / "a.safetensors").metadata))
    short = load(manager, tmp_path / "b.safetensors")
    assert short.clip.configs[0]["num_hidden_layers"] == 23
    torch.testing.assert_close(encode(manager, short, "a cat").cross, encode(manager, whole, "a cat").cross)


def test_the_unet_is_told_what_diffusers_pipeline_tells_it(tmp_path: Path, manager: ModelManager):
    loaded, real = load(manager, make_tiny(tmp_path / "a.safetensors", SDXL)), tiny_unet_modules(SDXL)
    text = encode(manager, loaded, "a cat")
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500.0])
    options = {"width": 640, "height": 512, "crop_w": 16, "crop_h": 32, "target_width": 768, "target_height": 1024}
    got = predict(manager, loaded.model, x, t, text, options)
    ids = torch.tensor([[512.0, 640, 32, 16, 1024, 768]])
    with torch.no_grad():
        wanted = real.unet(x, t, text.cross, added_cond_kwargs={"text_embeds": text.pooled, "time_ids": ids}).sample
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    ("tiny", "options", "told"),
    [
        (SDXL, {}, [64, 128, 0, 0, 64, 128]),
        (SDXL, {"width": 512}, [64, 512, 0, 0, 64, 512]),
        (REFINER, {"prompt_type": "positive"}, [64, 128, 0, 0, 6.0]),
        (REFINER, {"prompt_type": "negative"}, [64, 128, 0, 0, 2.5]),
        (REFINER, {"aesthetic_score": 7.0, "prompt_type": "negative", "height": 1024}, [1024, 128, 0, 0, 7.0]),
        (SD2, {"width": 512}, None),
    ],
)
def test_a_prompt_without_sizes_means_the_latents(
    tmp_path: Path, manager: ModelManager, tiny: Tiny, options: dict[str, Any], told: list[float] | None
):
    model = load(manager, make_tiny(tmp_path / "a.safetensors", tiny)).model
    extra = model.family.extra_conditions(model, None, options, torch.zeros(1, 4, 8, 16))
    assert (extra["time_ids"].tolist() if told else extra) == ([told] if told else {})


@pytest.mark.parametrize("marked", ["tensor", "metadata", "scheduler", "norm"])
def test_v_prediction_is_told_by_whatever_a_file_has(tmp_path: Path, manager: ModelManager, marked: str):
    if marked == "scheduler":
        path = make_tiny_folder(tmp_path / "a", SD2, {"prediction_type": "v_prediction"})
    else:
        path = make_tiny(
            tmp_path / "a.safetensors",
            SD2,
            marks=("v_pred",) if marked == "tensor" else (),
            metadata={"modelspec.prediction_type": "v"} if marked == "metadata" else {},
        )
    if marked == "norm":
        tensors, header = load_file(path), read_header(path)
        name = "model.diffusion_model.output_blocks.8.1.transformer_blocks.0.norm1.bias"
        tensors[name] = torch.linspace(-1, 1, tensors[name].numel()).half()
        save_file(tensors, path, dict(header.metadata))
    found = detect(open_header(path))
    assert found is not None and found.prediction == load(manager, path).model.prediction == "v"


def test_zero_terminal_snr_reaches_sampling_and_training(tmp_path: Path, manager: ModelManager):
    path = make_tiny(tmp_path / "a.safetensors", SDXL, marks=("v_pred", "ztsnr"))
    model = load(manager, path).model
    assert (model.prediction, model.family.schedule(model).sigma_max > 4000) == ("v", True)
    assert float(model.family.alphas_cumprod(model)[-1]) < 1e-7


def test_text_encoders_alone_make_the_same_prompt(tmp_path: Path, manager: ModelManager):
    loaded, real = load(manager, make_tiny(tmp_path / "a.safetensors", SDXL)), tiny_unet_modules(SDXL)
    words = dict(read_header(tmp_path / "a.safetensors").metadata)
    paths = []
    for name, text in zip(("l", "g"), real.texts, strict=True):
        paths.append(tmp_path / f"clip_{name}.safetensors")
        save_file({k: v.half().contiguous() for k, v in transformers_tensors(text).items()}, paths[-1], words)
    for order in (paths, paths[::-1]):
        clip = family_of_clip([read_header(p) for p in order], "sdxl").load_clip(manager, order)
        assert (clip.family.spec.name, clip.names) == ("sdxl", ("l", "g"))
        alone, whole = (
            encode(manager, replace(loaded, clip=clip), "a (cat:1.2)"),
            encode(manager, loaded, "a (cat:1.2)"),
        )
        torch.testing.assert_close(alone.cross, whole.cross)
        torch.testing.assert_close(alone.pooled, whole.pooled)
    for names, family in ((paths[:1], "sd1"), (paths[1:], "sdxl_refiner")):
        assert family_of_clip([read_header(p) for p in names], "stable_diffusion").spec.name == family


def test_the_text_encoder_of_sd2_alone_is_known(tmp_path: Path, manager: ModelManager):
    state = transformers_tensors(tiny_unet_modules(SD2).texts[0])
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, tmp_path / "h.safetensors")
    assert family_of_clip([read_header(tmp_path / "h.safetensors")], "stable_diffusion").spec.name == "sd2"
    assert (L.layers, H.layers) == (3, 24)


def encode(manager: ModelManager, loaded: Components, text: Any) -> TextBatch:
    clip = loaded.clip
    with manager.lease(*clip.refs) as leased, torch.no_grad():
        return clip.family.encode_prompt([leased[ref] for ref in clip.refs], clip, text)


def predict(
    manager: ModelManager, model: Model, x: torch.Tensor, t: torch.Tensor, text: TextBatch, options: dict[str, Any]
) -> torch.Tensor:
    extra = model.family.extra_conditions(model, text.pooled, options, x)
    with manager.lease(model.ref) as leased, torch.no_grad():
        return model.family.predict(leased[model.ref], x, t, replace(text, extra=extra))
