"""The Generate form's values brought back: from the graph or text that a picture carries, or from a pasted text."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from engine.errors import InputError
from engine.families.base import Detected
from engine.families.discover import detect
from engine.graph.metadata import read_metadata
from engine.graph.parameters import parse_parameters
from engine.weights.header import PickleFile, read_header
from engine.workflows import LoraChoice, from_parameters, settings_of
from engine.workspace import inside
from tabs.app import App

SIZED = ("width", "height", "steps", "cfg", "sampler_name", "scheduler")  # what a model has defaults for


class NoSuchModel(InputError):
    en = "There is no model '{name}' in models/checkpoints any more. Choose another."
    zh = "models/checkpoints 中已没有模型“{name}”。请选择其他模型。"


class NoSettings(InputError):
    en = "{name} does not say how it was made, so there is nothing to restore."
    zh = "{name} 没有记录生成信息，无法还原设置。"


def sent_picture(app: App, sent: dict[str, Any]) -> Path:
    """The file that a live part has named. Raises OutsideWorkspace."""
    folder = {"input": app.workspace.input, "temp": app.workspace.temp}.get(sent.get("type", ""), app.workspace.output)
    return inside(folder, f"{sent.get('subfolder', '')}/{sent['filename']}".lstrip("/"))


def fill(app: App, names: list[str], sent: dict[str, Any]) -> list[Any]:
    """New values of the form's fields for a picture sent here: as start picture, or with its settings restored."""
    path = sent_picture(app, sent)
    if sent["to"] == "send.img2img":
        kept = _as_input(path, app.workspace.input)
        return [kept if name == "image" else gr.skip() for name in names]
    values = restored(app, path)
    return [values.get(name, gr.skip()) for name in names]


def restored(app: App, path: Path) -> dict[str, Any]:
    """The form's values behind a picture: from the graph it carries, or from A1111's text. Raises NoSettings."""
    found = read_metadata(path)
    settings = settings_of(found.prompt or {})
    if settings is None and not found.parameters:
        raise NoSettings(name=path.name)
    if settings is None:
        return of_text(app, found.parameters)
    factor = factor_of(app, settings.ckpt_name) if _exists(app, settings.ckpt_name) else 8
    lora = settings.loras[0] if settings.loras else LoraChoice("", 1.0)
    values = asdict(settings)
    if not settings.image:
        del values["denoise"]  # without a start picture it is always 1, which would make the next start picture useless
    return values | {
        "seed": str(settings.seed),
        "width": settings.width * factor // 8,
        "height": settings.height * factor // 8,
        "lora_name": lora.name,
        "lora_strength": lora.strength_model,
    }


def of_text(app: App, text: str) -> dict[str, Any]:
    """What A1111's text says, as values of the form; what it leaves open is not among them, nor a model or LoRA that is
    not here."""
    told = parse_parameters(text)
    models, loras = app.workspace.list_models("checkpoints"), app.workspace.list_models("loras")
    known = {name: getattr(told, name) for name in ("positive", "negative", *SIZED)}
    values: dict[str, Any] = {name: value for name, value in known.items() if value not in (None, "")}
    settings = from_parameters(told, models, loras)
    if told.seed is not None:
        values["seed"] = str(told.seed)
    if told.model and settings.ckpt_name in models:
        values["ckpt_name"] = settings.ckpt_name
    if settings.loras and settings.loras[0].name in loras:
        values |= {"lora_name": settings.loras[0].name, "lora_strength": settings.loras[0].strength_model}
    return values


def model_info(app: App, name: str) -> Detected | None:
    """What a checkpoint is by its header; None for a family not known here, and for a pickle file that only the
    worker reads. Raises FileError, NoSuchModel."""
    if not _exists(app, name):
        raise NoSuchModel(name=name)
    try:
        return detect(read_header(app.workspace.model_path("checkpoints", name)))
    except PickleFile:
        if app.workspace.allow_pickle:
            return None
        raise


def factor_of(app: App, name: str) -> int:
    """Pixels of a picture for each cell of its latent."""
    found = model_info(app, name)
    return found.factor if found else 8


def _exists(app: App, name: str) -> bool:
    return name in app.workspace.list_models("checkpoints")


def _as_input(path: Path, folder: Path) -> str:
    """The picture's name in the input folder, copied there under a free name where it lies elsewhere."""
    if path.parent == folder:
        return path.name
    copy, number = folder / path.name, 2
    while copy.exists() and copy.read_bytes() != path.read_bytes():
        copy, number = folder / f"{path.stem} ({number}){path.suffix}", number + 1
    if not copy.exists():
        shutil.copyfile(path, copy)
    return copy.name
