"""The Generate tab's sums: its form becomes settings, and a picture becomes a form again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.errors import FileError
from engine.families.base import Defaults, Detected
from engine.graph.metadata import Metadata, save_picture
from engine.workflows import LoraChoice, PictureSettings, text_to_image
from studio.app import App
from tabs import generate, restoring
from tabs.generate import BadSeed, NoModel, NoNumber, picture_settings
from tabs.restoring import NoSettings, NoSuchModel, fill, of_text, restored

FORM: dict[str, Any] = {
    "ckpt_name": "easel-demo.safetensors",
    "positive": "a red star",
    "negative": None,
    "lora_name": "",
    "lora_strength": 1.0,
    "width": 128,
    "height": 96,
    "batch_size": 2,
    "seed": "7",
    "steps": 16,
    "cfg": 5,
    "sampler_name": "euler",
    "scheduler": "normal",
    "denoise": 0.6,
    "image": "",
}


def picture(path: Path, metadata: Metadata) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        save_picture(Image.new("RGB", (8, 8), "red"), file, "PNG", metadata)
    return path


def test_a_form_becomes_settings(app: App) -> None:
    settings = picture_settings(app, FORM)
    assert settings == PictureSettings(
        "easel-demo.safetensors", "a red star", "", 128, 96, 2, 7, 16, 5.0, "euler", "normal", 1.0
    )


def test_a_vae_of_another_factor_is_reckoned_with(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Detected("sd1", "ldm", "eps", Defaults(64, 64), factor=4)
    monkeypatch.setattr(restoring, "model_info", lambda app, name: told)
    settings = picture_settings(app, FORM | {"width": 64, "height": 48})
    assert (settings.width, settings.height) == (
        128,
        96,
    )  # EmptyLatentImage divides by 8, this VAE makes 4 of each cell


def test_denoise_counts_only_with_a_start_picture(app: App) -> None:
    assert picture_settings(app, FORM).denoise == 1.0
    assert picture_settings(app, FORM | {"image": "a.png"}).denoise == 0.6


def test_a_lora_is_taken_with_its_strength_and_none_needs_none(app: App) -> None:
    assert picture_settings(app, FORM | {"lora_name": "x.safetensors", "lora_strength": -0.5}).loras == (
        LoraChoice("x.safetensors", -0.5, -0.5),
    )
    assert picture_settings(app, FORM | {"lora_strength": None}).loras == ()


@pytest.mark.parametrize("seed", ["banana", "-2", "1.5", str(2**64)])
def test_a_wrong_seed_is_refused_in_both_languages(app: App, seed: str) -> None:
    with pytest.raises(BadSeed) as refused:
        picture_settings(app, FORM | {"seed": seed})
    assert seed in refused.value.text("en") and f"不能使用种子“{seed}”" in refused.value.text("zh")


def test_minus_one_and_nothing_draw_a_seed(app: App) -> None:
    drawn = {picture_settings(app, FORM | {"seed": seed}).seed for seed in ("-1", "", " ", None)}
    assert len(drawn) == 4 and all(0 <= seed < 2**48 for seed in drawn)


def test_the_largest_seed_keeps_every_digit(app: App) -> None:
    assert picture_settings(app, FORM | {"seed": str(2**64 - 1)}).seed == 2**64 - 1


def test_an_empty_number_and_no_model_are_refused(app: App) -> None:
    with pytest.raises(NoNumber, match="'steps' is empty"):
        picture_settings(app, FORM | {"steps": None})
    with pytest.raises(NoModel):
        picture_settings(app, FORM | {"ckpt_name": None})


def test_a_model_that_is_gone_is_named(app: App) -> None:
    with pytest.raises(NoSuchModel, match="no model 'gone' in"):
        picture_settings(app, FORM | {"ckpt_name": "gone"})


def test_a_broken_checkpoint_does_not_stop_the_page(app: App) -> None:
    broken = app.workspace.models / "checkpoints" / "a broken one.safetensors"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text("hello")
    assert generate._first_model(app)[0] == "easel-demo.safetensors"
    with pytest.raises(FileError):
        picture_settings(app, FORM | {"ckpt_name": broken.name})


def test_a_picture_brings_its_form_back(app: App) -> None:
    settings = picture_settings(app, FORM | {"lora_name": "x.safetensors", "lora_strength": 0.5})
    path = picture(app.workspace.output / "a.png", Metadata(prompt=text_to_image(settings)))
    found = restored(app, path)
    assert {name: found[name] for name in ("positive", "seed", "width", "height", "steps", "cfg")} == {
        "positive": "a red star", "seed": "7", "width": 128, "height": 96, "steps": 16, "cfg": 5.0,
    }  # fmt: skip
    assert (found["lora_name"], found["lora_strength"]) == ("x.safetensors", 0.5)
    assert "denoise" not in found  # it had no start picture: the form keeps what it says for the next one


def test_a_picture_of_another_program_brings_what_its_text_says(app: App) -> None:
    text = "a fox\nNegative prompt: blurry\nSteps: 30, Sampler: DPM++ 2M, CFG scale: 6.5, Seed: 42, Size: 512x768"
    found = restored(app, picture(app.workspace.output / "b.png", Metadata(parameters=text)))
    assert found["positive"] == "a fox" and found["negative"] == "blurry"
    assert (found["steps"], found["cfg"], found["seed"], found["width"], found["height"]) == (30, 6.5, "42", 512, 768)
    assert found["sampler_name"] == "dpmpp_2m" and "ckpt_name" not in found


def test_a_picture_without_settings_says_so(app: App) -> None:
    with pytest.raises(NoSettings, match=r"c\.png does not say how it was made"):
        restored(app, picture(app.workspace.output / "c.png", Metadata()))


def test_a_start_picture_is_copied_to_the_inputs_and_never_over_another(app: App) -> None:
    sent = {"to": "send.img2img", "filename": "d.png", "subfolder": "", "type": "output"}
    picture(app.workspace.output / "d.png", Metadata(parameters="one"))
    assert fill(app, ["image"], sent) == ["d.png"]
    assert fill(app, ["image"], sent) == ["d.png"]
    picture(app.workspace.output / "d.png", Metadata(parameters="two"))
    assert fill(app, ["image"], sent) == ["d (2).png"]
    assert sorted(path.name for path in app.workspace.input.iterdir()) == ["d (2).png", "d.png"]


def test_a_pasted_text_names_a_model_and_a_lora_that_are_here(app: App) -> None:
    (app.workspace.models / "loras" / "Snow.safetensors").write_bytes(b"x")
    text = (
        "a fox <lora:snow:0.7> <lora:gone:1>\nNegative prompt: blurry\n"
        "Steps: 8, Sampler: Euler a, Schedule type: Karras, CFG scale: 2, Seed: 18446744073709551615, Model: easel-demo"
    )
    found = of_text(app, text)
    assert (found["ckpt_name"], found["lora_name"], found["lora_strength"]) == (
        "easel-demo.safetensors", "Snow.safetensors", 0.7,
    )  # fmt: skip
    assert found["seed"] == str(2**64 - 1) and found["positive"] == "a fox" and found["scheduler"] == "karras"
    other = of_text(app, "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Model: not-here")
    assert "ckpt_name" not in other and "lora_name" not in other and "negative" not in other


def test_a_pickle_is_known_to_the_worker_alone(app: App) -> None:
    """The form keeps its values for it; it is refused with what to do where the owner has not allowed such files."""
    path = app.workspace.models / "checkpoints" / "old.ckpt"
    path.write_bytes(b"PK\x03\x04" + bytes(20))
    with pytest.raises(FileError, match="allow_pickle = true"):
        restoring.model_info(app, "old.ckpt")
    allowed = replace(app, workspace=replace(app.workspace, allow_pickle=True))
    assert restoring.model_info(allowed, "old.ckpt") is None
    assert picture_settings(allowed, FORM | {"ckpt_name": "old.ckpt"}).width == 128
