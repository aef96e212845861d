"""What pictures say about themselves, in PNG, WebP and JPEG, and A1111's text."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.graph.metadata import Metadata, UnreadablePicture, read_metadata, save_picture
from engine.graph.parameters import Hires, Lora, Parameters, is_parameters, parameters_of, parse_parameters
from engine.workflows import from_a1111

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


HIRES = """a castle BREAK a moon, (old:1.2)
by night <lora:ink:0.6:0.8> <lyco:lines> <lora:fog:te=0.2:unet=1>
Negative prompt: people,
text
Steps: 30, Sampler: DPM++ 2M SDE, Schedule type: Automatic, CFG scale: 6.5, Seed: 12, Size: 512x640, \
Model hash: 6ce0161689, Model: castle_v1.2, Variation seed: 99, Variation seed strength: 0.25, \
Denoising strength: 0.4, Clip skip: 2, ENSD: 31337, Hires upscale: 1.5, Hires steps: 10, \
Hires upscaler: R-ESRGAN 4x+, Lora hashes: "ink: a, lines: b", Version: v1.10.1"""


def test_loras_skipped_layers_the_second_pass_and_what_has_no_place_here():
    found = parse_parameters(HIRES)
    assert found.positive == "a castle BREAK a moon, (old:1.2)\nby night" and found.negative == "people,\ntext"
    assert found.loras == (Lora("ink", 0.8, 0.6), Lora("lines", 1.0), Lora("fog", 1.0, 0.2))
    assert (found.sampler_name, found.scheduler, found.clip_skip) == ("dpmpp_2m_sde", "exponential", 2)
    assert found.hires == Hires(1.5, None, None, 10, "R-ESRGAN 4x+")
    assert found.model == "castle_v1.2" and found.denoise == 0.4
    kept = {"Variation seed": "99", "Variation seed strength": "0.25", "ENSD": "31337", "Model hash": "6ce0161689"}
    assert kept.items() <= found.other.items()
    assert parse_parameters(found.text()) == found


LAST = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 512x640"


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (f"a fox\nNegative prompt: bad\n{LAST},\nVersion: v1.3", {"Version": "v1.3"}),
        (
            f"a fox\nNegative prompt: bad\n{LAST}\nTemplate: a __beast__, here\nNegative Template: x",
            {"Template": "a __beast__", "Negative Template": "x"},
        ),
        (f"a fox\r\n Negative prompt:bad\r\n{LAST}\r\n", {}),
        (f"a fox\nNegative prompt: bad\n{LAST.replace(': ', ':').replace(', ', ',').replace('x640', ' x 640')}", {}),
        (
            f'a fox\nNegative prompt: bad\n{LAST}, Civitai resources: [{{"name":"A, B"}}, {{"weight":1}}], More: x',
            {"Civitai resources": '[{"name":"A, B"}, {"weight":1}]', "More": "x"},
        ),
        (
            f'a fox\nNegative prompt: bad\n{LAST}, ADetailer prompt: "a ""face"", Seed: 9", Odd: [1, More: "open, x',
            None,
        ),
    ],
)
def test_values_are_found_however_they_are_laid_out(text, other):
    found = parse_parameters(text)
    assert (found.positive, found.negative) == ("a fox", "bad")
    assert (found.steps, found.sampler_name, found.seed, found.width, found.height) == (
        *(20, "euler_ancestral", 3, 512, 640),
    )
    assert other is None or found.other == other
    assert is_parameters(text)


def test_forge_names_its_second_pass_and_its_guidance_in_its_own_way():
    told = f"a\n{LAST}, Distilled CFG Scale: 4.5, Hires CFG Scale: 5, Hires upscale: 1.5, Hires upscaler: Latent"
    found = parse_parameters(told)
    assert found.hires is not None and found.hires.changed == {"cfg": 5.0}
    prompt = from_a1111(found, ["m.safetensors"], [])
    assert prompt["guidance"] == {
        "class_type": "FluxGuidance",
        "inputs": {"conditioning": ["2", 0], "guidance": 4.5},
    }
    assert prompt["5"]["inputs"]["positive"] == prompt["second"]["inputs"]["positive"] == ["guidance", 0]


@pytest.mark.parametrize(
    ("sampler", "schedule", "found"),
    [
        ("DPM++ SDE Karras", "", ("dpmpp_sde", "karras")),
        ("DPM++ 2M SDE Heun Exponential", "", ("dpmpp_2m_sde_heun", "exponential")),
        ("DPM2 a Karras", "", ("dpm_2_ancestral", "karras")),
        ("Euler a", "", ("euler_ancestral", "")),
        ("Euler a", "Automatic", ("euler_ancestral", "normal")),
        ("DPM++ 2M", "Automatic", ("dpmpp_2m", "karras")),
        ("DPM++ 2M", "SGM Uniform", ("dpmpp_2m", "sgm_uniform")),
        ("Euler", "Uniform", ("euler", "normal")),
        ("UniPC", "", ("uni_pc", "")),
        ("Nobody's", "", ("Nobody's", "")),
    ],
)
def test_names_of_samplers_and_schedules_in_both_their_forms(sampler, schedule, found):
    told = f"Steps: 1, Sampler: {sampler}" + (f", Schedule type: {schedule}" if schedule else "")
    parsed = parse_parameters(told)
    assert (parsed.sampler_name, parsed.scheduler) == found


def test_a1111s_text_becomes_the_graph_that_makes_such_a_picture():
    prompt = from_a1111(parse_parameters(HIRES), ["castle_v1.2.safetensors"], ["ink.safetensors"], ["R-ESRGAN 4x+.pth"])
    inputs = {key: node["inputs"] for key, node in prompt.items()}
    assert inputs["1"]["ckpt_name"] == "castle_v1.2.safetensors"
    assert (inputs["lora1"]["strength_model"], inputs["lora1"]["strength_clip"]) == (0.8, 0.6)
    assert inputs["skip"] == {"clip": ["lora3", 1], "stop_at_clip_layer": -2}
    assert inputs["2"] == {"text": "a castle", "clip": ["skip", 0]}
    assert inputs["2part1"] == {"text": "a moon, (old:1.2)\nby night", "clip": ["skip", 0]}
    assert inputs["5"]["positive"] == ["2joined1", 0] and inputs["5"]["negative"] == ["3", 0]
    assert inputs["2joined1"] == {"conditioning_to": ["2", 0], "conditioning_from": ["2part1", 0]}
    assert inputs["upscaler"]["model_name"] == "R-ESRGAN 4x+.pth"
    assert (inputs["scaled"]["width"], inputs["scaled"]["height"]) == (768, 960)
    second = inputs["second"]
    assert (second["steps"], second["denoise"], second["latent_image"]) == (4, 0.4, ["larger", 0])
    assert (second["seed"], second["positive"]) == (12, ["2joined1", 0])
    assert inputs["7"]["images"] == ["decoded", 0]


def test_a_latent_second_pass_decodes_once_and_has_a_sampler_of_its_own():
    text = (
        "Steps: 20, Sampler: Euler, Size: 512x512, Denoising strength: 0.7, Hires resize: 1024x768, "
        "Hires upscaler: Latent (nearest-exact), Hires sampler: DPM++ 2M, Hires schedule type: Karras, "
        "Hires CFG scale: 5"
    )
    prompt = from_a1111(parse_parameters(text), ["m.safetensors"], [])
    assert "6" not in prompt and prompt["larger"]["class_type"] == "LatentUpscale"
    assert (prompt["larger"]["inputs"]["width"], prompt["larger"]["inputs"]["height"]) == (1024, 768)
    second = prompt["second"]["inputs"]
    assert (second["sampler_name"], second["scheduler"], second["cfg"], second["steps"]) == (
        "dpmpp_2m",
        "karras",
        5.0,
        14,
    )
    linked = {value[0] for node in prompt.values() for value in node["inputs"].values() if isinstance(value, list)}
    assert linked <= set(prompt)


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


@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
def test_webp_and_jpeg_keep_the_tags_that_others_read(kind):
    """ComfyUI reads the camera's maker and model, A1111 the user's comment."""
    file = io.BytesIO()
    save_picture(Image.new("RGB", (8, 8)), file, kind, Metadata(prompt={"1": {}}, workflow={"n": 1}, parameters="x 图"))
    with Image.open(file) as picture:
        exif = picture.getexif()
        assert exif[0x0110] == 'prompt:{"1": {}}' and exif[0x010F] == 'workflow:{"n": 1}'
        assert exif.get_ifd(0x8769)[0x9286] == b"UNICODE\0" + "x 图".encode("utf-16-be")
        assert set(exif) == {0x0110, 0x010F, 0x8769}


def with_comment(comment: bytes, kind: str = "JPEG", order: str = "II", **ascii_tags: str) -> io.BytesIO:
    """A picture whose EXIF is in that byte order, as others write it."""
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    for tag, text in ascii_tags.items():
        exif[int(tag.removeprefix("tag"), 16)] = text
    exif.get_ifd(0x8769)[0x9286] = comment
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, exif=exif.tobytes())
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + "a 雪\nSteps: 1, Seed: 2".encode("utf-16-le"),
        b"UNICODE\0" + "a 雪\nSteps: 1, Seed: 2".encode("utf-16-be"),
        b"UNICODE\0" + "\ufeffa 雪\nSteps: 1, Seed: 2".encode("utf-16-le"),
        b"UNICODE\0" + "a 雪\nSteps: 1, Seed: 2\0".encode("utf-16-be"),
        b"ASCII\0\0\0" + "a 雪\nSteps: 1, Seed: 2".encode(),
        b"\0" * 8 + "a 雪\nSteps: 1, Seed: 2".encode(),
        "a 雪\nSteps: 1, Seed: 2".encode(),
    ],
)
def test_comments_of_others_are_read_in_all_their_encodings(comment, order, kind):
    assert read_metadata(with_comment(comment, kind, order)).parameters == "a 雪\nSteps: 1, Seed: 2"


def test_graphs_are_found_where_others_put_them():
    node, workflow = {"class_type": "A", "inputs": {}}, {"nodes": [], "links": []}
    tags = {"tag10f": f"Prompt:{json.dumps({'1': node})}", "tag10e": f"Workflow:{json.dumps(workflow)}"}
    assert read_metadata(with_comment(b"", **tags)) == Metadata({"1": node}, workflow)
    both = json.dumps({"prompt": {"1": node}, "workflow": workflow})
    assert read_metadata(with_comment(both.encode())) == Metadata({"1": node}, workflow)
    beside = json.dumps({"1": node, "extra": {"airs": []}, "extraMetadata": "{}"})
    assert read_metadata(with_comment(b"UNICODE\0" + beside.encode("utf-16-be"))) == Metadata({"1": node})


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
