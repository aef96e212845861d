"""Flux.1 at tiny size, in the layouts of its real files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Type
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.families.base import Adapter, Components, Model, TextBatch
from engine.families.discover import detect, detect_denoiser, family_of_clip, family_of_denoiser, family_of_vae
from engine.families.flux import Flux
from engine.families.parts.adapters import acting
from engine.families.parts.dit import places_of
from engine.families.parts.dit_family import NoTextEncoder
from engine.families.parts.layers import stored_layers
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.sampling.model import schedule_of
from engine.weights.header import read_header
from engine.weights.load import open_header
from engine.weights.lora import LoraOfOtherModel
from engine.weights.quantised import UnknownQuantisation
from tests.families.tiny_dit import (
    FLUX,
    ae_tensors,
    clip_tensors,
    in_file_layout,
    make_flux_checkpoint,
    save,
    t5_tensors,
    tiny_ae,
    tiny_clip,
    tiny_flux,
    tiny_sd3,
    tiny_t5,
)  # fmt: skip

QKV = "double_blocks.0.img_attn.qkv"


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


@pytest.fixture
def tiny(tmp_path: Path, manager: ModelManager) -> Components:
    return Flux().load_checkpoint(manager, make_flux_checkpoint(tmp_path / "flux.safetensors"))


def text(batch: int = 1, seed: int = 0, **extra: Tensor) -> TextBatch:
    generator = torch.Generator().manual_seed(seed)
    cross, pooled = torch.randn(1, 7, 48, generator=generator), torch.randn(1, 24, generator=generator)
    return TextBatch(cross.expand(batch, -1, -1), pooled.expand(batch, -1), extra)


def predicted(manager: ModelManager, model: Model, batch: TextBatch | None = None, adapters: tuple[Adapter, ...] = ()):
    x = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(5))
    with manager.lease(model.ref) as leased, torch.no_grad(), acting(leased[model.ref], adapters) as module:
        return Flux().predict(module, x, torch.tensor([0.7]), batch or text(guidance=torch.tensor([3.5])))


def holds(module: nn.Module, other: nn.Module) -> bool:
    """The other's weights, but for being stored in half precision in between."""
    ours = {n: t for n, t in module.state_dict().items()}
    theirs = {n: t for n, t in other.state_dict().items() if n in ours}
    return len(theirs) == len(ours) and all(torch.equal(ours[n].float(), theirs[n].half().float()) for n in ours)


def test_a_checkpoint_has_all_parts(tmp_path: Path, tiny: Components, manager: ModelManager):
    found = detect(read_header(tmp_path / "flux.safetensors"))
    assert found is not None and (found.family, found.prediction, found.layout) == ("flux", "flow", "maker")
    assert {model["state"] for model in manager.snapshot()["models"]} == {"file"}, "nothing but the header is read"
    assert tiny.clip.names == ("l", "t5xxl") and tiny.model.config == FLUX
    refs = (tiny.model.ref, *tiny.clip.refs, tiny.vae.ref)
    assert len({ref.key for ref in refs}) == 4
    with manager.lease(*refs) as leased:
        for ref, module in zip(refs, (tiny_flux(), tiny_clip("l"), tiny_t5(), tiny_ae()), strict=True):
            assert holds(leased[ref], module), ref.title


def test_parts_come_from_files_of_their_own(tmp_path: Path, manager: ModelManager):
    unet = save(in_file_layout(tiny_flux()), tmp_path / "flux.safetensors")
    clip = save(clip_tensors(tiny_clip("l")), tmp_path / "clip_l.safetensors")
    t5 = save(t5_tensors(tiny_t5()), tmp_path / "t5.safetensors")
    ae = save(ae_tensors(tiny_ae()), tmp_path / "ae.safetensors")
    model = family_of_denoiser(read_header(unet)).load_denoiser(manager, unet)
    family = family_of_clip([read_header(t5), read_header(clip)], "flux")
    loaded = family.load_clip(manager, [t5, clip])
    vae = family_of_vae(read_header(ae)).load_vae(manager, ae)
    assert loaded.names == ("l", "t5xxl") and vae.latent.channels == 16 and vae.factor == 2
    with manager.lease(model.ref, *loaded.refs, vae.ref) as leased:
        assert holds(leased[model.ref], tiny_flux()) and holds(leased[vae.ref], tiny_ae())
        modules = [leased[ref] for ref in loaded.refs]
        with torch.no_grad():
            batch = family.encode_prompt(modules, loaded, "a red fox")
            earlier = family.encode_prompt(modules, replace(loaded, stop_at_layer=-2), "a red fox")
    assert not torch.allclose(earlier.cross, batch.cross), "CLIPSetLastLayer is T5's as well"
    assert batch.cross.shape == (1, 256, 48) and batch.pooled is not None and batch.pooled.shape == (1, 24)
    draft = family.draft_prompt(loaded, "a red fox")
    assert (draft.cross.shape, draft.pooled is not None and draft.pooled.shape) == (batch.cross.shape, (1, 24))


@pytest.mark.parametrize("folder", [False, True])
def test_diffusers_names_and_folders_are_read(tmp_path: Path, manager: ModelManager, folder: bool):
    if folder:
        tiny_flux().save_pretrained(tmp_path / "transformer")
        tiny_ae().save_pretrained(tmp_path / "vae")
        for name, module in (("text_encoder", tiny_clip("l")), ("text_encoder_2", tiny_t5())):
            module.save_pretrained(tmp_path / name)
        parts = Flux().load_checkpoint(manager, tmp_path)
        model = parts.model
        assert parts.clip.names == ("l", "t5xxl")
        assert detect(open_header(tmp_path)) is not None
    else:
        path = save(tiny_flux().state_dict(), tmp_path / "a.safetensors")
        model = Flux().load_denoiser(manager, path)
    assert model.config == FLUX
    with manager.lease(model.ref) as leased:
        ours, theirs = leased[model.ref].state_dict(), tiny_flux().state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n].half(), theirs[n].half()) for n in ours)


def test_a_checkpoint_without_text_encoders_says_what_to_do(tmp_path: Path, manager: ModelManager):
    tensors = in_file_layout(tiny_flux(), "model.diffusion_model.") | ae_tensors(tiny_ae(), "vae.")
    clip = Flux().load_checkpoint(manager, save(tensors, tmp_path / "a.safetensors")).clip
    with pytest.raises(NoTextEncoder, match="DualCLIPLoader"):
        Flux().encode_prompt([], clip, "a red fox")


def test_relatives_of_flux_are_not_taken_for_it(tmp_path: Path):
    chroma = {**in_file_layout(tiny_flux()), "distilled_guidance_layer.in_proj.weight": torch.ones(1)}
    assert detect_denoiser(read_header(save(chroma, tmp_path / "chroma.safetensors"))) is None
    found = detect_denoiser(read_header(save(in_file_layout(tiny_sd3()), tmp_path / "sd3.safetensors")))
    assert found is None or found.family != "flux"


def test_guidance_is_told_to_models_that_have_it(tmp_path: Path, tiny: Components, manager: ModelManager):
    latent = torch.zeros(1, 16, 6, 8)
    family = Flux()
    assert family.extra_conditions(tiny.model, None, {}, latent)["guidance"] == 3.5
    assert family.extra_conditions(tiny.model, None, {"guidance": 2.0}, latent)["guidance"] == 2.0
    assert not family.extra_conditions(tiny.model, None, {"guidance": None}, latent)
    by_guidance = [predicted(manager, tiny.model, text(guidance=torch.tensor([g]))) for g in (1.0, 3.5)]
    none = predicted(manager, tiny.model, text())
    assert not torch.equal(*by_guidance) and not torch.equal(by_guidance[0], none)
    schnell = save(in_file_layout(tiny_flux(guidance_embeds=False)), tmp_path / "schnell.safetensors")
    model = family.load_denoiser(manager, schnell)
    assert not family.extra_conditions(model, None, {"guidance": 2.0}, latent)
    assert (schedule_of(model).sigma(0.5), schedule_of(model).sigma_max) == (0.5, 1.0)
    assert schedule_of(tiny.model).sigma(0.5) == pytest.approx(0.7595, abs=1e-4)


def test_fill_sees_a_picture_and_the_pixels_of_its_mask(tmp_path: Path, manager: ModelManager):
    path = save(in_file_layout(tiny_flux(in_channels=384)), tmp_path / "fill.safetensors")
    model, latent = Flux().load_denoiser(manager, path), torch.zeros(2, 16, 6, 8)
    nothing = Flux().extra_conditions(model, None, {}, latent)["concat"]
    assert nothing.shape == (1, 80, 6, 8) and (nothing[:, 16:] == 1).all()
    torch.testing.assert_close(nothing[:, :16], torch.full((1, 16, 6, 8), -0.1159 * 0.3611))
    mask = torch.zeros(1, 48, 64)
    mask[:, 8, 17] = 1.0  # the second cell down, the third across; its second pixel
    options = {"concat_latent_image": torch.randn(1, 16, 6, 8), "concat_mask": mask}
    concat = Flux().extra_conditions(model, None, options, latent)["concat"]
    torch.testing.assert_close(concat[:, :16], (options["concat_latent_image"] - 0.1159) * 0.3611)
    assert concat[0, 16:].nonzero().tolist() == [[1, 1, 2]]
    assert predicted(manager, model, text(guidance=torch.tensor([30.0]), concat=concat)).shape == (1, 16, 6, 8)


def test_control_models_see_a_picture_alone(tmp_path: Path, manager: ModelManager):
    model = Flux().load_denoiser(manager, save(in_file_layout(tiny_flux(in_channels=128)), tmp_path / "a.safetensors"))
    options = {"concat_latent_image": torch.randn(1, 16, 12, 16)}
    concat = Flux().extra_conditions(model, None, options, torch.zeros(1, 16, 6, 8))["concat"]
    assert concat.shape == (1, 16, 6, 8)


def test_references_stand_beside_the_picture():
    latents = [torch.zeros(1, 16, 8, 12), torch.zeros(1, 16, 8, 8), torch.zeros(1, 16, 5, 6)]
    assert places_of("offset", (9, 8), latents) == [(1, 0, 0), (1, 4, 0), (1, 0, 6)]
    assert places_of("index", (9, 8), latents) == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]
    assert places_of("uxo", (9, 8), latents) == [(0, 5, 4), (0, 9, 10), (0, 13, 14)]


def test_references_are_seen_and_not_returned(tiny: Components, manager: ModelManager):
    latents = [torch.randn(1, 16, 4, 6), torch.randn(1, 16, 5, 5)]
    seen = []
    for method in ("offset", "index", "uxo/uno"):
        options = {"reference_latents": latents, "reference_latents_method": method}
        extra = Flux().extra_conditions(tiny.model, None, options, torch.zeros(1, 16, 6, 8))
        torch.testing.assert_close(extra["reference_0"], (latents[0] - 0.1159) * 0.3611)
        seen.append(predicted(manager, tiny.model, text(**extra)))
    assert all(one.shape == (1, 16, 6, 8) for one in seen)
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_odd_sides_are_predicted(tiny: Components, manager: ModelManager):
    with manager.lease(tiny.model.ref) as leased, torch.no_grad():
        x = torch.randn(2, 16, 5, 7)
        assert Flux().predict(leased[tiny.model.ref], x, torch.tensor([0.5, 0.5]), text(2)).shape == x.shape


def lora(*layers: tuple[str, int, int], fmt: str = "{}", dotted: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for name, rows, columns in layers:
        base = fmt.format(name if dotted else name.replace(".", "_"))
        tensors[f"{base}.lora_down.weight"] = torch.randn(2, columns, generator=generator)
        tensors[f"{base}.lora_up.weight"] = torch.randn(rows, 2, generator=generator)
        tensors[f"{base}.alpha"] = torch.tensor(1.0)
    return tensors


LAYERS = ((QKV, 192, 64), ("double_blocks.1.txt_mlp.0", 256, 64), ("single_blocks.1.linear1", 448, 64),
          ("single_blocks.0.linear2", 64, 320), ("final_layer.adaLN_modulation.1", 128, 64), ("img_in", 64, 64),
          ("double_blocks.0.img_mod.lin", 384, 64))  # fmt: skip


@pytest.mark.parametrize(("fmt", "dotted"), [("lora_unet_{}", False), ("diffusion_model.{}", True), ("{}", True)])
def test_a_lora_on_the_files_layers_is_one_that_is_merged_into_them(
    tmp_path: Path, tiny: Components, manager: ModelManager, fmt: str, dotted: bool
):
    tensors = lora(*LAYERS, fmt=fmt, dotted=dotted)
    save_file(tensors, tmp_path / "lora.safetensors")
    file = Flux().read_lora(tmp_path / "lora.safetensors", tiny.model, None)
    assert not file.unmatched
    acted = predicted(manager, tiny.model, adapters=(Adapter("a", "a", 0.7, file.entries["denoiser"]),))
    merged = in_file_layout(tiny_flux())
    for name, _, _ in LAYERS:
        base = fmt.format(name if dotted else name.replace(".", "_"))
        delta = tensors[f"{base}.lora_up.weight"] @ tensors[f"{base}.lora_down.weight"] * 0.5
        merged[f"{name}.weight"] = merged[f"{name}.weight"].half().float() + 0.7 * delta
    rest = {n: t.half().float() for n, t in merged.items() if n.removesuffix(".weight") not in {la[0] for la in LAYERS}}
    path = save({**merged, **rest}, tmp_path / "merged.safetensors", None)
    torch.testing.assert_close(acted, predicted(manager, Flux().load_denoiser(manager, path)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fmt", "dotted"), [("transformer.{}", True), ("lora_transformer_{}", False),
                                             ("lycoris_{}", False), ("base_model.model.{}", True)])  # fmt: skip
def test_a_lora_on_the_modules_layers_is_found(tmp_path: Path, tiny: Components, fmt: str, dotted: bool):
    layers = (("transformer_blocks.0.attn.to_q", 64, 64), ("single_transformer_blocks.1.proj_out", 64, 320))
    save_file(lora(*layers, fmt=fmt, dotted=dotted), tmp_path / "lora.safetensors")
    file = Flux().read_lora(tmp_path / "lora.safetensors", tiny.model, None)
    assert set(file.entries["denoiser"]) == {name for name, _, _ in layers} and not file.unmatched


def test_a_lora_acts_on_both_text_encoders(tmp_path: Path, tiny: Components):
    t5 = "encoder_block_1_layer_0_SelfAttention_q"
    for number in ("2", "3"):  # OneTrainer's number for T5, and kohya's
        tensors = lora(("text_model_encoder_layers_0_self_attn_q_proj", 24, 24), fmt="lora_te1_{}")
        tensors |= lora((t5, 32, 48), fmt=f"lora_te{number}_{{}}")
        save_file(tensors, tmp_path / "lora.safetensors")
        entries = Flux().read_lora(tmp_path / "lora.safetensors", tiny.model, tiny.clip).entries
        assert set(entries["text_encoder"]) == {"encoder.layers.0.self_attn.q_proj"}
        assert set(entries["text_encoder_2"]) == {"encoder.block.1.layer.0.SelfAttention.q"}


def test_keys_of_our_own_loras_are_read_again(tmp_path: Path, tiny: Components):
    family = Flux()
    names = {"denoiser": "transformer_blocks.0.ff.net.2", "text_encoder": "encoder.layers.0.mlp.fc1",
             "text_encoder_2": "encoder.block.0.layer.1.DenseReluDense.wo"}  # fmt: skip
    shapes = {"denoiser": (64, 256), "text_encoder": (48, 24), "text_encoder_2": (48, 64)}
    parts: Any = names
    keys = [(family.lora_key(tiny.model, part, names[part]), *shapes[part]) for part in parts]
    save_file(lora(*keys), tmp_path / "lora.safetensors")
    entries = family.read_lora(tmp_path / "lora.safetensors", tiny.model, tiny.clip).entries
    assert {part: list(found) for part, found in entries.items()} == {part: [name] for part, name in names.items()}


def test_a_lora_of_another_family_is_refused(tmp_path: Path, tiny: Components):
    save_file(lora(("lora_unet_mid_block_attentions_0_proj_in", 8, 8)), tmp_path / "lora.safetensors")
    with pytest.raises(LoraOfOtherModel):
        Flux().read_lora(tmp_path / "lora.safetensors", tiny.model, None)


FP8 = torch.float8_e4m3fn


def plain_fp8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(FP8) for name, tensor in tensors.items()}


def scaled_fp8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return _scaled(tensors, "scale_weight", {"scaled_fp8": torch.zeros(2, dtype=FP8)})


def comfy_quant(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    mark = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    marks = {f"{n.removesuffix('.weight')}.comfy_quant": mark.clone() for n, t in tensors.items() if t.ndim == 2}
    return _scaled(tensors, "weight_scale", marks)


def kohya_scaled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A scale for each block of 32 of a row, for each row of what is narrower."""
    done = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            blocks = tensor.view(len(tensor), -1, 32 if tensor.shape[1] % 32 == 0 else tensor.shape[1])
            factor = blocks.abs().amax(dim=2, keepdim=True) / 448
            done[name] = (blocks / factor).view(tensor.shape).to(FP8)
            done[name.removesuffix("weight") + "scale_weight"] = factor if factor.shape[1] > 1 else factor[:, 0]
        else:
            done[name] = tensor.to(torch.bfloat16)
    return done


def _scaled(tensors: dict[str, Tensor], scale: str, more: dict[str, Tensor]) -> dict[str, Tensor]:
    done = dict(more)
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            factor = tensor.abs().max() / 448
            done[name], done[name.removesuffix("weight") + scale] = (tensor / factor).to(FP8), factor
            done[name.removesuffix("weight") + scale.replace("weight", "input")] = torch.tensor(1.0)
        else:
            done[name] = tensor.to(torch.bfloat16)
    return done


@pytest.mark.parametrize("quantise", [plain_fp8, scaled_fp8, kohya_scaled, comfy_quant])
def test_fp8_files_run_as_their_numbers_say(
    tmp_path: Path, manager: ModelManager, quantise: Callable[[dict[str, Tensor]], dict[str, Tensor]]
):
    plain = in_file_layout(tiny_flux(), "model.diffusion_model.")
    stored = quantise(plain)
    numbers = {n: _times(stored[n].float(), _factor(stored, n)) for n in plain}
    small = Flux().load_denoiser(manager, save(stored, tmp_path / "small.safetensors", None))
    whole = Flux().load_denoiser(manager, save(numbers, tmp_path / "whole.safetensors", None))
    before = {m["title"]: m["nbytes"] for m in manager.snapshot()["models"]}
    torch.testing.assert_close(predicted(manager, small), predicted(manager, whole), rtol=1e-4, atol=1e-5)
    after = {m["title"]: m["nbytes"] for m in manager.snapshot()["models"]}
    assert (
        after == {**before, small.ref.title: after[small.ref.title]}
        and after[small.ref.title] < 0.3 * after[whole.ref.title]
    )
    with manager.lease(small.ref) as leased:
        assert {layer.weight.dtype for _, layer in stored_layers(leased[small.ref])} == {FP8}


def _times(weight: Tensor, factor: Tensor) -> Tensor:
    if factor.ndim < 3:
        return weight * factor
    return weight * factor[:, :, 0].repeat_interleave(weight.shape[1] // factor.shape[1], dim=1)


def _factor(stored: dict[str, Tensor], name: str) -> Tensor:
    scales = (name.removesuffix("weight") + scale for scale in ("scale_weight", "weight_scale"))
    return next((stored[scale] for scale in scales if scale in stored), torch.tensor(1.0))


def test_gguf_files_run_as_their_numbers_say(tmp_path: Path, manager: ModelManager):
    """Rows of 256 and more, so that the kinds with long blocks fit."""
    module = tiny_flux(num_attention_heads=8, num_layers=1, num_single_layers=1)
    plain = in_file_layout(module)
    writer, numbers = gguf.GGUFWriter(tmp_path / "small.gguf", "flux"), {}
    for number, (name, tensor) in enumerate(plain.items()):
        data = tensor.numpy()
        kind = (Type.Q8_0, Type.Q4_0, Type.Q5_1)[number % 3]
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            rows = gguf.quants.quantize(data, kind)
            writer.add_tensor(name, rows, raw_dtype=kind)
            numbers[name] = torch.from_numpy(gguf.quants.dequantize(rows, kind))
        else:
            writer.add_tensor(name, data)
            numbers[name] = tensor
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    small = family_of_denoiser(read_header(tmp_path / "small.gguf")).load_denoiser(manager, tmp_path / "small.gguf")
    whole = Flux().load_denoiser(manager, save(numbers, tmp_path / "whole.safetensors", None))
    torch.testing.assert_close(predicted(manager, small), predicted(manager, whole), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
def test_a_half_file_is_kept_in_fp8_when_asked(tmp_path: Path, manager: ModelManager, name: Any):
    path = save(in_file_layout(tiny_flux()), tmp_path / "a.safetensors")
    plain, small = Flux().load_denoiser(manager, path), Flux().load_denoiser(manager, path, weight_dtype=name)
    assert plain.ref.key != small.ref.key
    assert not torch.equal(predicted(manager, plain), predicted(manager, small))
    sizes = {m["key"]: m["nbytes"] for m in manager.snapshot()["models"]}
    assert sizes[small.ref.key] < 0.3 * sizes[plain.ref.key]


def test_an_unknown_quantisation_is_refused(tmp_path: Path, manager: ModelManager):
    tensors = {**plain_fp8(in_file_layout(tiny_flux())), f"{QKV}.weight.quant_state.bitsandbytes__nf4": torch.ones(1)}
    with pytest.raises(UnknownQuantisation, match="bitsandbytes nf4"):
        Flux().load_denoiser(manager, save(tensors, tmp_path / "a.safetensors", None))


def test_adapters_of_other_kinds_act_on_stored_weights(tmp_path: Path, manager: ModelManager):
    """LoHa and its kin make a weight of their own, from what the stored one says."""
    plain = in_file_layout(tiny_flux())
    small = Flux().load_denoiser(manager, save(plain_fp8(plain), tmp_path / "small.safetensors", None))
    whole = Flux().load_denoiser(
        manager, save({n: t.to(FP8).float() for n, t in plain.items()}, tmp_path / "b.safetensors", None)
    )
    name = "lora_unet_double_blocks_0_img_attn_proj"
    save_file({f"{name}.hada_w1_a": torch.randn(64, 2), f"{name}.hada_w1_b": torch.randn(2, 64),
               f"{name}.hada_w2_a": torch.randn(64, 2), f"{name}.hada_w2_b": torch.randn(2, 64)},
              tmp_path / "loha.safetensors")  # fmt: skip
    entries = Flux().read_lora(tmp_path / "loha.safetensors", small, None).entries["denoiser"]
    adapters = (Adapter("a", "a", 0.5, entries),)
    before = predicted(manager, small)
    ours, theirs = (predicted(manager, model, adapters=adapters) for model in (small, whole))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.equal(ours, before) and torch.equal(predicted(manager, small), before)
