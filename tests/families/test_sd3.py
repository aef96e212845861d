"""Stable Diffusion 3 and 3.5 at tiny size, in the layouts of their real files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.families.base import Adapter, Components, Model, TextBatch
from engine.families.discover import detect, detect_denoiser, family_of_clip, family_of_denoiser
from engine.families.parts.adapters import acting
from engine.families.parts.dit_family import NoTextEncoder
from engine.families.sd3 import SD3 as Family
from engine.families.sd3 import joined
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.sampling.model import schedule_of
from engine.weights.header import read_header
from engine.weights.identify import identify
from engine.weights.load import open_header
from tests.families.tiny_dit import (
    SD3,
    SD3_TEXT,
    SD35,
    ae_tensors,
    clip_tensors,
    in_file_layout,
    make_sd3_checkpoint,
    save,
    t5_tensors,
    tiny_ae,
    tiny_clip,
    tiny_flux,
    tiny_projection,
    tiny_sd3,
    tiny_t5,
)  # fmt: skip


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd3_checkpoint(tmp_path_factory.mktemp("models") / "sd3.safetensors", SD35)


@pytest.fixture
def tiny(checkpoint: Path, manager: ModelManager) -> Components:
    return Family().load_checkpoint(manager, checkpoint)


def encoded(manager: ModelManager, parts: Components, text: Any) -> TextBatch:
    clip = parts.clip
    with manager.lease(*clip.refs) as leased, torch.no_grad():
        batch = Family().encode_prompt([leased[ref] for ref in clip.refs], clip, text)
    draft = Family().draft_prompt(clip, text)
    assert batch.pooled is not None and draft.pooled is not None
    assert (draft.cross.shape, draft.pooled.shape) == (batch.cross.shape, batch.pooled.shape)
    return batch


def predicted(manager: ModelManager, model: Model, adapters: tuple[Adapter, ...] = (), side: int = 8):
    generator = torch.Generator().manual_seed(5)
    width = model.config["joint_attention_dim"]
    x = torch.randn(1, 16, 6, side, generator=generator)
    text = TextBatch(torch.randn(1, 7, width, generator=generator), torch.randn(1, 64, generator=generator))
    with manager.lease(model.ref) as leased, torch.no_grad(), acting(leased[model.ref], adapters) as module:
        return Family().predict(module, x, torch.tensor([700.0]), text)


def test_a_checkpoint_has_all_parts(checkpoint: Path, manager: ModelManager):
    found = detect(read_header(checkpoint))
    assert found is not None and (found.family, found.prediction, found.layout) == ("sd3", "flow", "maker")
    parts = Family().load_checkpoint(manager, checkpoint)
    assert {model["state"] for model in manager.snapshot()["models"]} == {"file"}, "nothing but the header is read"
    assert parts.clip.names == ("l", "g", "t5xxl")
    assert (parts.vae.latent.scale, parts.vae.latent.shift) == (1.5305, 0.0609)
    module = tiny_sd3(config={**SD35, "joint_attention_dim": SD3_TEXT})
    modules = (module, tiny_clip("l"), tiny_clip("g"), tiny_t5(SD3_TEXT), tiny_ae())
    with manager.lease(parts.model.ref, *parts.clip.refs, parts.vae.ref) as leased:
        for ref, other in zip((parts.model.ref, *parts.clip.refs, parts.vae.ref), modules, strict=True):
            ours = leased[ref].state_dict()
            theirs = {n: t for n, t in other.state_dict().items() if "embed_tokens" not in n}
            assert all(torch.equal(ours[n].float(), t.half().float()) for n, t in theirs.items()), ref.title
        assert torch.equal(leased[parts.clip.refs[1]].text_projection.weight.float(), tiny_projection().half().float())


@pytest.mark.parametrize("config", [SD3, SD35])
def test_the_transformer_says_what_diffusers_says(tmp_path: Path, manager: ModelManager, config: dict[str, Any]):
    """Odd sides are filled up and cut again."""
    path = save(in_file_layout(tiny_sd3(config=config)), tmp_path / "a.safetensors", torch.float32)
    model = family_of_denoiser(read_header(path)).load_denoiser(manager, path)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 16, 6, 8, generator=generator)
    cross, pooled = torch.randn(1, 7, 48, generator=generator), torch.randn(1, 64, generator=generator)
    with torch.no_grad():
        wanted = tiny_sd3(config=config)(x, cross, pooled, torch.tensor([700.0]), return_dict=False)[0]
    torch.testing.assert_close(predicted(manager, model), wanted, rtol=1e-4, atol=1e-5)
    assert predicted(manager, model, side=7).shape == (1, 16, 6, 7)


def test_the_schedule_is_moved_by_three(tiny: Components):
    schedule = schedule_of(tiny.model)
    assert (schedule.sigma(500.0), schedule.timestep(0.75), schedule.sigma_max) == (0.75, 750.0, 1.0)


def test_a_folder_of_diffusers_is_read(tmp_path: Path, manager: ModelManager):
    tiny_sd3(config=SD35).save_pretrained(tmp_path / "transformer")
    tiny_ae().save_pretrained(tmp_path / "vae")
    for name, module in (("", tiny_clip("l")), ("_2", tiny_clip("g")), ("_3", tiny_t5())):
        module.save_pretrained(tmp_path / f"text_encoder{name}")
    found = detect(open_header(tmp_path))
    assert found is not None and (found.family, found.layout) == ("sd3", "diffusers")
    parts = Family().load_checkpoint(manager, tmp_path)
    assert parts.clip.names == ("l", "g", "t5xxl")
    single = save(in_file_layout(tiny_sd3(config=SD35)), tmp_path / "a.safetensors", torch.float32)
    expected = predicted(manager, Family().load_denoiser(manager, single))
    torch.testing.assert_close(predicted(manager, parts.model), expected)


def test_another_last_layer_is_each_encoders(tiny: Components, manager: ModelManager):
    parts = replace(tiny, clip=replace(tiny.clip, stop_at_layer=-1))
    read, last = encoded(manager, tiny, "a red fox").cross, encoded(manager, parts, "a red fox").cross
    assert not torch.allclose(read[:, :77, :24], last[:, :77, :24]) and torch.equal(read[:, 77:], last[:, 77:])
    parts = replace(tiny, clip=replace(tiny.clip, stop_at_layer=-2))
    earlier = encoded(manager, parts, "a red fox").cross
    assert torch.equal(read[:, :77], earlier[:, :77]), "what the CLIPs of SD3 are read at anyway"
    assert not torch.allclose(read[:, 77:], earlier[:, 77:])


def test_texts_lie_side_by_side_and_t5_behind_them(tiny: Components, manager: ModelManager):
    cross = encoded(manager, tiny, "a red fox").cross
    assert cross.shape == (1, 77 + 77, SD3_TEXT) and not cross[:, :77, 64:].any()
    with manager.lease(*tiny.clip.refs) as leased, torch.no_grad():
        for number, (start, end) in enumerate(((0, 24), (24, 64))):
            module, tokenizer = leased[tiny.clip.refs[number]], tiny.clip.tokenizers[number]
            pad = tokenizer.end if number == 0 else 0
            ids = [tokenizer.start, *tokenizer.encode("a red fox"), tokenizer.end]
            out = module(torch.tensor([ids + [pad] * (77 - len(ids))]), output_hidden_states=True)
            torch.testing.assert_close(cross[:, :77, start:end], out.hidden_states[-2].float(), rtol=1e-3, atol=1e-4)
    long = ("a fox " * 60).strip()
    t5 = len(tiny.clip.tokenizers[2].encode(long)) + 1
    assert t5 > 77 and encoded(manager, tiny, long).cross.shape[1] == 154 + t5


def test_an_encoder_without_text_is_left_out(tiny: Components, manager: ModelManager):
    whole = encoded(manager, tiny, {"l": "fox", "g": "fox", "t5xxl": "fox"})
    same = encoded(manager, tiny, "fox")
    assert torch.equal(whole.cross, same.cross)
    clips = encoded(manager, tiny, {"l": "fox", "g": "fox"})
    assert clips.cross.shape == (1, 77, 4096) and torch.equal(clips.cross[..., :64], whole.cross[:, :77, :64])
    t5 = encoded(manager, tiny, {"t5xxl": "fox"})
    assert torch.equal(t5.cross, whole.cross[:, 77:]) and t5.pooled is not None and not t5.pooled.any()
    one = encoded(manager, tiny, {"g": "fox"})
    assert torch.equal(one.cross, encoded(manager, tiny, {"g": "fox", "l": ""}).cross), "L goes with G"
    nothing = encoded(manager, tiny, {})
    assert nothing.cross.shape == (1, 77, 4096) and not nothing.cross.any()


def test_encoders_that_are_not_there_are_zeros():
    state, pooled = torch.ones(2, 77, 1280), torch.ones(2, 1280)
    only_g = joined({"g": state}, {"g": pooled})
    assert only_g.cross.shape == (2, 77, 4096) and only_g.pooled is not None and only_g.pooled.shape == (2, 2048)
    assert (
        not only_g.cross[..., :768].any() and only_g.cross[..., 768:2048].all() and not only_g.cross[..., 2048:].any()
    )
    only_t5 = joined({"t5xxl": torch.ones(1, 90, 4096)}, {})
    assert only_t5.cross.shape == (1, 90, 4096) and only_t5.pooled is not None and not only_t5.pooled.any()


def test_a_checkpoint_without_text_encoders_says_what_to_do(tmp_path: Path, manager: ModelManager):
    path = make_sd3_checkpoint(tmp_path / "a.safetensors", encoders=())
    clip = Family().load_checkpoint(manager, path).clip
    with pytest.raises(NoTextEncoder, match="TripleCLIPLoader"):
        Family().encode_prompt([], clip, "a red fox")


def test_text_encoders_come_from_files_of_their_own(tmp_path: Path, tiny: Components, manager: ModelManager):
    g = {**clip_tensors(tiny_clip("g")), "text_projection.weight": tiny_projection()}
    paths = {
        "l": save(clip_tensors(tiny_clip("l")), tmp_path / "clip_l.safetensors"),
        "g": save(g, tmp_path / "clip_g.safetensors"),
        "t5xxl": save(t5_tensors(tiny_t5(SD3_TEXT)), tmp_path / "t5xxl.safetensors"),
    }
    for names in (("t5xxl", "g", "l"), ("g", "l"), ("t5xxl", "l"), ("g",)):
        files = [paths[name] for name in names]
        clip = family_of_clip([read_header(file) for file in files], "sd3").load_clip(manager, files)
        assert clip.names == tuple(name for name in paths if name in names)
        if len(names) == 3:
            parts = Components(tiny.model, clip, tiny.vae, "", "")
            assert torch.equal(encoded(manager, parts, "a fox").cross, encoded(manager, tiny, "a fox").cross)


def test_relatives_are_not_taken_for_it(tmp_path: Path):
    found = detect_denoiser(read_header(save(in_file_layout(tiny_flux()), tmp_path / "a.safetensors")))
    assert found is not None and found.family == "flux"
    control = {**tiny_sd3().state_dict(), "controlnet_blocks.0.weight": torch.ones(1)}
    assert detect_denoiser(read_header(save(control, tmp_path / "control.safetensors"))) is None
    path = save(in_file_layout(tiny_sd3()), tmp_path / "sd3.safetensors")
    assert (identify(read_header(path)).kind, identify(read_header(path)).family) == ("denoiser", "sd3")
    vae = save(ae_tensors(tiny_ae()), tmp_path / "vae.safetensors")
    assert detect(read_header(vae)) is None


def test_captions_are_encoded_for_training(tiny: Components, manager: ModelManager):
    with manager.lease(*tiny.clip.refs) as leased:
        modules = [leased[ref] for ref in tiny.clip.refs]
        batch = Family().encode_captions(modules, tiny.clip, ["a red fox", "snow"])
        one = Family().encode_prompt(modules, tiny.clip, "snow")
    assert batch.cross.shape == (2, 154, SD3_TEXT) and batch.pooled is not None and one.pooled is not None
    torch.testing.assert_close(batch.cross[1:], one.cross, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(batch.pooled[1:], one.pooled, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("fmt", "layer"),
    [("lora_unet_{}", "joint_blocks_0_x_block_attn_qkv"), ("diffusion_model.{}", "joint_blocks.0.x_block.attn.qkv")],
)
def test_a_lora_is_one_that_is_merged(tmp_path: Path, manager: ModelManager, fmt: str, layer: str):
    plain = in_file_layout(tiny_sd3())
    model = Family().load_denoiser(manager, save(plain, tmp_path / "a.safetensors", torch.float32))
    down, up = torch.randn(2, 128), torch.randn(384, 2)
    name = fmt.format(layer)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "lora.safetensors")
    entries = Family().read_lora(tmp_path / "lora.safetensors", model, None).entries["denoiser"]
    acted = predicted(manager, model, (Adapter("a", "a", 0.5, entries),))
    merged = {**plain, "joint_blocks.0.x_block.attn.qkv.weight": plain["joint_blocks.0.x_block.attn.qkv.weight"]
              + 0.5 * (up @ down)}  # fmt: skip
    other = Family().load_denoiser(manager, save(merged, tmp_path / "b.safetensors", torch.float32))
    torch.testing.assert_close(acted, predicted(manager, other), rtol=1e-4, atol=1e-4)
    assert not torch.equal(acted, predicted(manager, model))
