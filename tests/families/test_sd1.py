from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel

from engine.families.base import Adapter, Clip, Components, Part, TextBatch
from engine.families.discover import UnknownFamily
from engine.families.parts.adapters import acting
from engine.families.parts.filling import MissingWeights
from engine.families.parts.stored import BadMetadata
from engine.families.sd1 import SD1
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.weights.header import Header, read_header
from engine.weights.lora import LoraOfOtherModel
from tests.families.tiny import TEXT, UNET, make_tiny_sd1, tiny_modules


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


@pytest.fixture
def tiny(tmp_path: Path, manager: ModelManager) -> Components:
    return SD1().load_checkpoint(manager, make_tiny_sd1(tmp_path / "tiny.safetensors"), (tmp_path,))


def equal(module: nn.Module, other: nn.Module) -> bool:
    """Same weights, but for being stored in half precision in between."""
    ours, theirs = module.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k].half().float()) for k in ours)


def encode(manager: ModelManager, clip: Clip, text: str) -> torch.Tensor:
    with manager.lease(*clip.refs) as leased, torch.no_grad():
        return clip.family.encode_prompt([leased[clip.refs[0]]], clip, text).cross


def test_loading_a_checkpoint_reads_nothing_but_its_header(tiny: Components, manager: ModelManager):
    assert {model["state"] for model in manager.snapshot()["models"]} == {"file"}


@pytest.mark.parametrize("diffusers_keys", [False, True])
def test_weights_of_a_file_arrive_in_their_modules(tmp_path: Path, manager: ModelManager, diffusers_keys: bool):
    tiny = SD1().load_checkpoint(manager, make_tiny_sd1(tmp_path / "a.safetensors", diffusers_keys=diffusers_keys))
    refs = (tiny.model.ref, tiny.vae.ref, tiny.clip.refs[0])
    with manager.lease(*refs) as leased:
        for ref, module in zip(refs, tiny_modules(), strict=True):
            assert equal(leased[ref], module), ref.role
            assert not leased[ref].training and not any(p.requires_grad for p in leased[ref].parameters())


def test_a_folder_of_diffusers_is_a_checkpoint(tmp_path: Path, manager: ModelManager):
    parts = tiny_modules()
    for name, module in zip(("unet", "vae", "text_encoder"), parts, strict=True):
        module.save_pretrained(tmp_path / name)
    folder = SD1().load_checkpoint(manager, tmp_path)
    assert folder.model.config["attention_head_dim"] == UNET["attention_head_dim"]
    assert folder.clip.configs[0]["num_attention_heads"] == TEXT["num_attention_heads"]
    with manager.lease(folder.model.ref) as leased:
        ours, theirs = leased[folder.model.ref].state_dict(), parts[0].state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_size_told_before_loading_is_the_size_after(tiny: Components, manager: ModelManager):
    before = {m["role"]: m["nbytes"] for m in manager.snapshot()["models"]}
    with manager.lease(tiny.model.ref, tiny.vae.ref, *tiny.clip.refs):
        after = {m["role"]: m["nbytes"] for m in manager.snapshot()["models"]}
    position_ids = 77 * 8
    assert after == {**before, "text_encoder": before["text_encoder"] + position_ids}


def test_the_same_file_is_one_model(tmp_path: Path, tiny: Components, manager: ModelManager):
    again = SD1().load_checkpoint(manager, tmp_path / "tiny.safetensors")
    assert (again.model.ref, again.clip.refs, again.vae.ref) == (tiny.model.ref, tiny.clip.refs, tiny.vae.ref)


def test_a_caption_is_what_transformers_makes_of_it(tiny: Components, manager: ModelManager):
    clip, tokenizer = tiny.clip, tiny.clip.tokenizers[0]
    tokens = tokenizer.encode("a red cat")
    ids = torch.tensor([[tokenizer.start, *tokens, *[tokenizer.end] * (76 - len(tokens))]])
    with manager.lease(*clip.refs) as leased, torch.no_grad():
        module = cast(CLIPTextModel, leased[clip.refs[0]])
        expected = module(ids)
        got = tiny.clip.family.encode_captions([module], clip, ["a red cat"])
    torch.testing.assert_close(got.cross, expected.last_hidden_state)
    torch.testing.assert_close(got.pooled, expected.pooler_output)


def test_a_prompt_without_weights_is_its_caption(tiny: Components, manager: ModelManager):
    with manager.lease(*tiny.clip.refs) as leased, torch.no_grad():
        caption = tiny.clip.family.encode_captions([leased[tiny.clip.refs[0]]], tiny.clip, ["a red cat"])
    torch.testing.assert_close(encode(manager, tiny.clip, "a red cat"), caption.cross)


def test_captions_are_cut_after_75_tokens_and_have_no_weights(tiny: Components, manager: ModelManager):
    with manager.lease(*tiny.clip.refs) as leased, torch.no_grad():
        modules = [leased[tiny.clip.refs[0]]]
        long = tiny.clip.family.encode_captions(modules, tiny.clip, ["cat " * 100, "(cat:2)"])
        literal = tiny.clip.family.encode_captions(modules, tiny.clip, ["( cat : 2 )"])
    assert long.cross.shape == (2, 77, 32)
    torch.testing.assert_close(long.cross[1:], literal.cross)


def test_weights_scale_the_distance_from_an_empty_prompt(tiny: Components, manager: ModelManager):
    plain, empty = encode(manager, tiny.clip, "a cat"), encode(manager, tiny.clip, "")
    weighted = encode(manager, tiny.clip, "a (cat:1.5)")
    expected = plain.clone()
    expected[0, 2] = empty[0, 2] + 1.5 * (plain[0, 2] - empty[0, 2])
    torch.testing.assert_close(weighted, expected)


def test_a_long_prompt_is_several_chunks_in_a_row(tiny: Components, manager: ModelManager):
    both = encode(manager, tiny.clip, "cat " * 75 + "dog")
    torch.testing.assert_close(both[:, :77], encode(manager, tiny.clip, "cat " * 75))
    torch.testing.assert_close(both[:, 77:], encode(manager, tiny.clip, "dog"))


def test_a_prompt_of_many_chunks_goes_through_in_parts(
    tiny: Components, manager: ModelManager, monkeypatch: pytest.MonkeyPatch
):
    text = "a (cat:1.2) " * 200
    at_once = encode(manager, tiny.clip, text)
    monkeypatch.setattr("engine.families.parts.clip.CHUNKS_AT_ONCE", 2)
    torch.testing.assert_close(encode(manager, tiny.clip, text), at_once)


def test_clip_skip_is_the_norm_of_an_earlier_layer(tiny: Components, manager: ModelManager):
    text = tiny_modules()[2]
    ids = torch.tensor([[tiny.clip.tokenizers[0].start, *[tiny.clip.tokenizers[0].end] * 76]])
    with torch.no_grad():
        layers = text(ids, output_hidden_states=True).hidden_states
        for skip, layer in ((-1, 3), (-2, 2), (-3, 1), (-24, 3)):
            got = encode(manager, replace(tiny.clip, stop_at_layer=skip), "")
            torch.testing.assert_close(got, text.final_layer_norm(layers[layer]), atol=2e-3, rtol=2e-3)


def test_a_textual_inversion_is_read_from_its_folder(tmp_path: Path, tiny: Components, manager: ModelManager):
    vectors = torch.randn(2, 32)
    save_file({"emb_params": vectors}, tmp_path / "thing.safetensors")
    save_file({"emb_params": torch.randn(2, 768)}, tmp_path / "wide.safetensors")
    (tmp_path / "broken.safetensors").write_text("no")
    plain = encode(manager, tiny.clip, "a cat")
    assert not torch.equal(encode(manager, tiny.clip, "a embedding:thing cat"), plain)
    for name in ("nothing", "wide", "broken", "../thing", "/etc/passwd"):
        assert torch.equal(encode(manager, tiny.clip, f"a embedding:{name} cat"), plain), name


@pytest.mark.parametrize("allow_pickle", [False, True])
def test_a1111s_inversions_are_read_where_the_owner_allows_pickles(
    tmp_path: Path, manager: ModelManager, allow_pickle: bool
):
    vectors = torch.randn(2, 32)
    about = {"string_to_token": {"*": 265}, "name": "thing", "step": 500, "sd_checkpoint": None}
    torch.save({**about, "string_to_param": {"*": nn.Parameter(vectors)}}, tmp_path / "thing.pt")
    save_file({"emb_params": vectors}, tmp_path / "same.safetensors")
    path = make_tiny_sd1(tmp_path / "tiny.safetensors")
    clip = SD1().load_checkpoint(manager, path, [tmp_path], allow_pickle=allow_pickle).clip
    same = encode(manager, clip, "a embedding:same cat")
    assert torch.equal(encode(manager, clip, "a embedding:thing cat"), same) is allow_pickle


def test_latents_are_in_the_scale_of_the_denoiser(tiny: Components, manager: ModelManager):
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    with manager.lease(tiny.vae.ref) as leased, torch.no_grad():
        vae = leased[tiny.vae.ref]
        latent = tiny.vae.family.encode_image(vae, tiny.vae, pixels)
        torch.testing.assert_close(latent, vae.encode(pixels).latent_dist.mean * 0.18215)
        image = tiny.vae.family.decode_latent(vae, tiny.vae, latent)
        torch.testing.assert_close(image, vae.decode(latent / 0.18215).sample)
    assert latent.shape == (1, 4, 8, 12) and image.shape == pixels.shape and tiny.vae.factor == 4


def test_the_schedule_is_that_of_stable_diffusion(tiny: Components):
    alphas = tiny.model.family.alphas_cumprod(tiny.model)
    assert alphas.shape == (1000,)
    sigmas = ((1 - alphas) / alphas).sqrt()
    assert (float(sigmas[0]), float(sigmas[-1])) == (pytest.approx(0.02917, rel=1e-3), pytest.approx(14.6146, rel=1e-4))


def test_a_lora_made_of_all_targets_fits_again(tmp_path: Path, tiny: Components, manager: ModelManager):
    family = tiny.model.family
    with manager.lease(tiny.model.ref, *tiny.clip.refs) as leased:
        unet = family.lora_targets(leased[tiny.model.ref], "denoiser", linear=True, conv=True)
        text = family.lora_targets(leased[tiny.clip.refs[0]], "text_encoder", linear=True, conv=False)
    assert len(unet) > 100 and len(text) == 18
    shapes = {**tiny.model.modules, **tiny.clip.modules[0]}
    tensors: dict[str, torch.Tensor] = {}
    parts: tuple[tuple[Part, list[str]], ...] = (("denoiser", unet), ("text_encoder", text))
    for part, names in parts:
        for name in names:
            key, shape = family.lora_key(tiny.model, part, name), shapes[name]
            tensors[f"{key}.lora_down.weight"] = torch.randn(2, *shape[1:])
            tensors[f"{key}.lora_up.weight"] = torch.zeros(shape[0], 2, *(1 for _ in shape[2:]))
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight" in tensors
    save_file(tensors, tmp_path / "lora.safetensors")
    lora = family.read_lora(tmp_path / "lora.safetensors", tiny.model, tiny.clip)
    assert set(lora.entries["denoiser"]) == set(unet) and set(lora.entries["text_encoder"]) == set(text)
    assert not lora.unmatched


def test_targets_are_kohyas(tiny: Components, manager: ModelManager):
    family = tiny.model.family
    with manager.lease(tiny.model.ref) as leased:
        linear = family.lora_targets(leased[tiny.model.ref], "denoiser", linear=True, conv=False)
        conv = family.lora_targets(leased[tiny.model.ref], "denoiser", linear=False, conv=True)
    assert "down_blocks.0.attentions.0.proj_in" in linear and not any("resnets" in name for name in linear)
    assert {"down_blocks.0.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv", "up_blocks.0.upsamplers.0.conv"} <= {
        *conv
    }
    assert "conv_in" not in conv and "time_embedding.linear_1" not in linear


def test_a_lora_acts_on_the_shared_module_and_leaves_it(tmp_path: Path, tiny: Components, manager: ModelManager):
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    key = tiny.model.family.lora_key(tiny.model, "denoiser", name)
    pair = {f"{key}.lora_down.weight": torch.randn(2, 16), f"{key}.lora_up.weight": torch.randn(16, 2)}
    save_file(pair, tmp_path / "lora.safetensors")
    entries = tiny.model.family.read_lora(tmp_path / "lora.safetensors", tiny.model, None).entries["denoiser"]
    text = encode(manager, tiny.clip, "a cat")
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500.0])

    def predict(module: nn.Module) -> torch.Tensor:
        return tiny.model.family.predict(module, x, t, TextBatch(text))

    with manager.lease(tiny.model.ref) as leased, torch.no_grad():
        module = leased[tiny.model.ref]
        plain = predict(module)
        with acting(module, [Adapter("k", "t", 1.0, entries)]):
            changed = predict(module)
        assert not torch.equal(changed, plain) and torch.equal(predict(module), plain)


def test_a_lora_of_another_model_is_refused(tmp_path: Path, tiny: Components):
    pair = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.zeros(2, 4),
            "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.zeros(4, 2)}  # fmt: skip
    save_file(pair, tmp_path / "flux.safetensors")
    with pytest.raises(LoraOfOtherModel, match=r"Flux\.1"):
        tiny.model.family.read_lora(tmp_path / "flux.safetensors", tiny.model, tiny.clip)


def edited(path: Path, drop: str = "", **metadata: str) -> Path:
    """The file without the tensors that contain `drop`, with other metadata."""
    header: Header = read_header(path)
    tensors = {name: tensor for name, tensor in load_file(path).items() if not drop or drop not in name}
    save_file(tensors, path, {**header.metadata, **{key.replace("_", ".", 1): v for key, v in metadata.items()}})
    return path


def test_a_checkpoint_that_lacks_weights_says_which(tmp_path: Path, manager: ModelManager):
    path = edited(make_tiny_sd1(tmp_path / "a.safetensors"), drop="middle_block.2.in_layers.2.weight")
    tiny = SD1().load_checkpoint(manager, path)
    with pytest.raises(MissingWeights, match=r"mid_block\.resnets\.1\.conv1\.weight"), manager.lease(tiny.model.ref):
        pass


def test_a_checkpoint_without_text_encoder_is_of_no_family(tmp_path: Path, manager: ModelManager):
    path = edited(make_tiny_sd1(tmp_path / "a.safetensors"), drop="cond_stage_model")
    with pytest.raises(UnknownFamily):
        SD1().load_checkpoint(manager, path)


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_broken_metadata_is_named(tmp_path: Path, manager: ModelManager, text: str):
    path = edited(make_tiny_sd1(tmp_path / "a.safetensors"), easel_unet=text)
    with pytest.raises(BadMetadata, match=r"easel\.unet"):
        SD1().load_checkpoint(manager, path)


def test_the_old_layout_of_the_text_encoder_is_read(tmp_path: Path, manager: ModelManager):
    path = make_tiny_sd1(tmp_path / "a.safetensors")
    header, tensors = read_header(path), load_file(path)
    old = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in tensors.items()}
    save_file(old, path, dict(header.metadata))
    tiny = SD1().load_checkpoint(manager, path)
    with manager.lease(*tiny.clip.refs) as leased:
        assert equal(leased[tiny.clip.refs[0]], tiny_modules()[2])


@pytest.mark.parametrize("place", ["", "first_stage_model.", "vae."])
def test_a_vae_alone_is_loaded(tmp_path: Path, manager: ModelManager, tiny: Components, place: str):
    tensors = load_file(tmp_path / "tiny.safetensors")
    prefix = "first_stage_model."
    alone = {place + name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    save_file(alone, tmp_path / "vae.safetensors", {"easel.vae": '{"norm_num_groups": 4}'})
    vae = SD1().load_vae(manager, tmp_path / "vae.safetensors")
    with manager.lease(vae.ref) as leased:
        assert equal(leased[vae.ref], tiny_modules()[1])
