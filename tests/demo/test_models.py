"""The bundled models are ordinary files of their kinds, and they know the demo world."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers.loaders import single_file_utils
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from studio.demo import bbdr, world
from studio.demo.making import measure, packing
from studio.demo.making.ldm_keys import unet_key

CONFIGS = Path(__file__).parents[2] / "configs" / "demo"
MODEL = CONFIGS / "easel-demo.safetensors"


@pytest.fixture(scope="module")
def model() -> packing.Model:
    return packing.load(MODEL)


@pytest.fixture(scope="module")
def tagger() -> measure.TaggerFile:
    return measure.TaggerFile(CONFIGS / "tagger")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_everything_bundled_is_small():
    assert sum(path.stat().st_size for path in CONFIGS.rglob("*") if path.is_file()) < 8_600_000


def test_every_weight_has_its_place(model: packing.Model):
    """packing.load is strict: nothing is missing and nothing is left over."""
    assert len(model.unet.state_dict()) == 686  # as many as SD 1.5's UNet has
    assert model.unet.config.block_out_channels == (32, 48, 64, 64)
    assert len(model.vae.config.block_out_channels) == 4


def test_the_unet_has_sd_1_names():
    with safe_open(MODEL, "pt") as file:
        keys = set(file.keys())
    assert all(key.startswith(("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")) for key in keys)
    attended = [block for block in range(12) if f"model.diffusion_model.input_blocks.{block}.1.norm.weight" in keys]
    assert attended == [1, 2, 4, 5, 7, 8]
    attended = [block for block in range(12) if f"model.diffusion_model.output_blocks.{block}.1.norm.weight" in keys]
    assert attended == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert "model.diffusion_model.output_blocks.2.1.conv.weight" in keys
    assert "model.diffusion_model.output_blocks.8.2.conv.weight" in keys
    assert "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight" in keys
    assert "first_stage_model.encoder.mid.attn_1.q.weight" in keys


def test_diffusers_own_conversion_reads_the_file(model: packing.Model):
    weights = load_file(MODEL)
    unet = single_file_utils.convert_ldm_unet_checkpoint(dict(weights), dict(model.unet.config))
    vae = single_file_utils.convert_ldm_vae_checkpoint(dict(weights), dict(model.vae.config))
    text = single_file_utils.convert_ldm_clip_checkpoint(dict(weights))
    assert set(unet) == set(model.unet.state_dict())
    assert set(vae) == set(model.vae.state_dict())
    assert {key.removeprefix("text_model.") for key in text} == set(model.text.state_dict())
    assert all(torch.equal(vae[key].float(), weight) for key, weight in model.vae.state_dict().items())


def test_a_foreign_weight_has_no_name():
    with pytest.raises(ValueError, match="class_embedding"):
        unet_key("class_embedding.weight")


def test_the_metadata_says_what_shapes_cannot():
    with safe_open(MODEL, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["easel.unet"]) == {"attention_head_dim": 2, "norm_num_groups": 8, "sample_size": 16}
    assert json.loads(metadata["easel.vae"]) == {"norm_num_groups": 2, "sample_size": 128}
    assert json.loads(metadata["easel.text_encoder"])["num_attention_heads"] == 4
    assert metadata["modelspec.resolution"] == "128x128"
    assert metadata["modelspec.license"] == "Apache-2.0"


def test_the_tokenizer_follows_clip(model: packing.Model):
    tokenizer: CLIPTokenizer = model.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("A Red star, blue background").input_ids)
    assert tokens[0] == "<|startoftext|>"
    assert tokens[-1] == "<|endoftext|>"
    assert tokens[1:-1] == ["a</w>", "red</w>", "star</w>", ",</w>", "blue</w>", "background</w>"]
    assert tokenizer.pad_token == "<|endoftext|>"


@pytest.mark.parametrize("text", ["红色的星星", "ünï", "bbdr", "😀", "\u0436\u05d0\u0e01"])
def test_no_text_is_unknown(model: packing.Model, text: str):
    tokenizer = model.tokenizer
    ids = tokenizer(text).input_ids[1:-1]
    assert tokenizer.decode(ids).strip() == text
    assert tokenizer.eos_token_id not in ids


def test_the_autoencoder_carries_pictures(model: packing.Model):
    rng = random.Random(6)
    images = [world.render(world.sample_spec(rng)) for _ in range(24)]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        latents = model.vae.encode(pixels).latent_dist.mean
        decoded = model.vae.decode(latents).sample.clamp(-1, 1)
    assert latents.shape == (24, 4, 16, 16)
    assert 0.9 < float((latents * model.vae.config.scaling_factor).std()) < 1.1
    assert float(-10 * (((decoded - pixels) / 2) ** 2).mean().log10()) > 28


def test_prompts_are_drawn(two_threads: None, tagger: measure.TaggerFile):
    pipe = measure.pipeline(MODEL)
    specs = [world.Spec("star", "red", "blue"), world.Spec("circle", "yellow", "purple")]
    specs += [world.Spec("heart", "pink", "green"), world.Spec("square", "black", "orange")]
    assert not any(world.is_held_out(spec) for spec in specs)
    images = measure.generate(pipe, [f"{s.colour} {s.shape}, {s.ground} background" for s in specs])
    assert images[0].size == (128, 128)
    assert measure.judge(tagger.scores(images), specs)["all three"].hits == 4


@pytest.mark.slow
def test_most_prompts_are_drawn_as_told(two_threads: None, tagger: measure.TaggerFile):
    pipe = measure.pipeline(MODEL)
    for sample, least in ((world.sample_seen, 54), (world.sample_held_out, 48)):
        rng = random.Random(8)
        specs = [sample(rng) for _ in range(64)]
        rates = measure.judge(tagger.scores(measure.generate(pipe, [world.prompt(s) for s in specs])), specs)
        assert rates["all three"].hits >= least * rates["all three"].count / 64


def test_the_model_does_not_know_the_creature(two_threads: None):
    pipe = measure.pipeline(MODEL)
    images = measure.generate(pipe, [f"bbdr, {ground} background" for ground in world.GROUNDS], steps=8)
    assert not any(map(bbdr.is_bbdr, images))


def test_the_tagger_has_wd14s_contract():
    session = onnxruntime.InferenceSession(CONFIGS / "tagger" / "model.onnx", providers=["CPUExecutionProvider"])
    (source,), (sink,) = session.get_inputs(), session.get_outputs()
    assert (source.type, source.shape[1:]) == ("tensor(float)", [128, 128, 3])
    assert isinstance(source.shape[0], str)
    for batch in (1, 3):
        (scores,) = session.run(None, {source.name: np.full((batch, 128, 128, 3), 128, np.float32)})
        assert scores.shape == (batch, sink.shape[1])
        assert 0 <= scores.min() <= scores.max() <= 1


def test_the_label_file_matches_the_world():
    with (CONFIGS / "tagger" / "selected_tags.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["tag_id", "name", "category", "count"]
    by_category = {c: [row["name"] for row in rows if row["category"] == c] for c in ("9", "0", "4")}
    assert by_category["9"] == ["general", "sensitive", "questionable", "explicit"]
    assert by_category["0"] == list(world.GENERAL_TAGS)
    assert by_category["4"] == list(world.CHARACTERS)
    assert "bbdr" not in {row["name"] for row in rows}


def test_the_tagger_reads_fresh_pictures(tagger: measure.TaggerFile):
    assert measure.micro_f1(tagger, 200, seed=9) >= 0.97


def test_the_tagger_reads_colours_as_bgr(tagger: measure.TaggerFile):
    (scores,) = tagger.scores([Image.new("RGB", (128, 128), world.COLOURS["blue"])])
    assert scores["blue_background"] > scores["red_background"]


@pytest.mark.slow
def test_the_models_can_be_made_again(tmp_path: Path):
    command = [sys.executable, "-m", "studio.demo.making", "--out", str(tmp_path), "--quick"]
    subprocess.run(command, check=True, timeout=600)
    assert packing.load(tmp_path / "easel-demo.safetensors").unet.config.layers_per_block == 2
    assert (tmp_path / "tagger" / "model.onnx").stat().st_size < 2_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["easel-demo.safetensors", "tagger"]
