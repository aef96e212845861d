"""What pictures say about themselves, in PNG, WebP and JPEG, and A1111's text."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.graph.metadata import Metadata, UnreadablePicture, read_metadata, save_picture
from engine.graph.parameters import Lora, Parameters, parameters_of, parse_parameters

PROMPT: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sub/红 fox.safetensors"}},
    "l1": {
        "class_type": "LoraLoader",
        "inputs": {"model": ["1", 0], "clip": ["1", 1], "lora_name": "a.safetensors", "strength_model": 0.5},
    },
    "l2": {
        "class_type": "LoraLoader",
        "inputs": {"model": ["l1", 0], "clip": ["l1", 1], "lora_name": "b.safetensors", "strength_model": -1},
    },
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["l2", 1], "text": "a (red:1.3) fox\nin snow, 雪"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["l2", 1], "text": "blurry"}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "s": {"class_type": "PrimitiveInt", "inputs": {"value": 2**63 - 1}},
    "5": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["l2", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "seed": ["s", 0],
            "steps": 4, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 0.6,
        },
    },
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
    "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
}  # fmt: skip
TEXT = """a (red:1.3) fox
in snow, 雪 <lora:a:0.5> <lora:b:-1>
Negative prompt: blurry
Steps: 4, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 9223372036854775807, Size: 96x64, \
Model: 红 fox, Denoising strength: 0.6"""


def test_a_graph_becomes_a1111s_text():
    found = parameters_of(PROMPT, "7", 96, 64)
    assert found is not None
    assert found.text() == TEXT


def test_the_text_is_read_back():
    found = parse_parameters(TEXT)
    assert found == Parameters(
        positive="a (red:1.3) fox\nin snow, 雪",
        negative="blurry",
        steps=4,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        cfg=7.5,
        seed=2**63 - 1,
        width=96,
        height=64,
        model="红 fox",
        denoise=0.6,
        loras=(Lora("a", 0.5), Lora("b", -1.0)),
    )
    assert found.text() == TEXT


def test_texts_of_other_programs_are_understood():
    text = (
        'masterpiece, 1girl\nNegative prompt: bad hands,\nlowres\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, '
        'Seed: 1, Size: 512x768, Model hash: abc, Model: any, Lora hashes: "a: 1, b: 2", Version: v1.10.0'
    )  # fmt: skip
    found = parse_parameters(text)
    assert (found.positive, found.negative) == ("masterpiece, 1girl", "bad hands,\nlowres")
    assert (found.sampler_name, found.scheduler) == ("dpmpp_2m", "karras")
    assert found.other == {"Model hash": "abc", "Lora hashes": "a: 1, b: 2", "Version": "v1.10.0"}


@pytest.mark.parametrize("text", ["", "just words", "a\nb: c", "Steps: x", "Steps:", "Negative prompt:", '"' * 50_000])
def test_any_text_is_read_without_harm(text):
    parse_parameters(text)


def test_a_graph_without_a_sampler_has_no_parameters():
    assert parameters_of({"1": {"class_type": "LoadImage", "inputs": {}}}, "1", 1, 1) is None
    assert parameters_of({"1": {"inputs": {"a": ["1", 0]}}, "2": 5}, "1", 1, 1) is None
    assert parameters_of({}, "1", 1, 1) is None


def test_a_cycle_in_a_graph_does_not_hang():
    looped = {**PROMPT, "1": {"class_type": "LoraLoader", "inputs": {"model": ["l2", 0], "lora_name": "c"}}}
    assert parameters_of(looped, "7", 1, 1) is not None


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_metadata_survives_the_file(kind):
    metadata = Metadata(
        prompt=PROMPT,
        workflow={"nodes": [], "名": "值"},
        parameters=TEXT,
        other={"extra": {"a": 1}},
        draft=kind == "PNG",
    )
    file = io.BytesIO()
    save_picture(Image.new("RGB", (8, 8)), file, kind, metadata)
    file.seek(0)
    assert read_metadata(file) == metadata


def test_png_keeps_the_keys_that_others_read():
    file = io.BytesIO()
    save_picture(Image.new("RGB", (8, 8)), file, "PNG", Metadata(prompt={"1": {}}, workflow={}, parameters="x"))
    with Image.open(file) as picture:
        assert picture.info == {"prompt": '{"1": {}}', "workflow": "{}", "parameters": "x"}


def test_metadata_that_is_no_json_is_none():
    info = PngInfo()
    info.add_text("prompt", "{broken")
    info.add_text("workflow", "[" * 100_000)
    info.add_text("Software", "other")
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    file.seek(0)
    assert read_metadata(file) == Metadata()


def test_prompts_with_nan_are_read_as_comfyui_writes_them():
    info = PngInfo()
    info.add_text("prompt", json.dumps({"1": {"is_changed": [float("nan")]}}))
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    file.seek(0)
    assert set(read_metadata(file).prompt or {}) == {"1"}


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_picture_is_said_to_be_none(content, tmp_path):
    path = tmp_path / "图.png"
    path.write_bytes(content)
    with pytest.raises(UnreadablePicture, match="图"):
        read_metadata(path)
