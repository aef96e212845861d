"""Which families there are: every module of this package that has a SPEC. Torch-free, so that the server can ask."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import cast

import engine.families
from engine.errors import FileError
from engine.families.base import Detected, Family, FamilyModule, FamilySpec
from engine.families.parts.few_steps import few_steps
from engine.weights.header import Header
from engine.weights.identify import identify


class UnknownFamily(FileError):
    en = "{path} is no checkpoint of a model family known here ({known}). It seems to be: {seems}."
    zh = "{path} 不是此处已知模型系列（{known}）的检查点。它看起来是：{seems}。"


class UnknownTextEncoders(FileError):
    en = (
        "{paths}: with the type '{type}' these text encoders are of no model family known here. "
        "Choose the type and the files that belong to your model."
    )
    zh = "{paths}：类型为“{type}”时，这些文本编码器不属于此处已知的任何模型系列。请选择与您的模型对应的类型和文件。"


@lru_cache(maxsize=1)
def discover() -> dict[str, FamilyModule]:
    """Family modules by name, in alphabetical order. Adding a family = adding a file."""
    names = sorted(m.name for m in pkgutil.iter_modules(engine.families.__path__) if not m.ispkg)
    modules = (importlib.import_module(f"engine.families.{name}") for name in names if name not in ("base", "discover"))
    return {module.SPEC.name: cast(FamilyModule, module) for module in modules if hasattr(module, "SPEC")}


def specs() -> list[FamilySpec]:
    return [module.SPEC for module in discover().values()]


def detect(header: Header) -> Detected | None:
    """Which family a checkpoint is of, by its header; None when no family knows it."""
    return _first(header, (module.detect(header) for module in discover().values()))


def family(name: str) -> Family:
    """The family itself. In the worker: it imports torch when it is used."""
    module, _, attribute = discover()[name].SPEC.family_class.partition(":")
    return cast(Family, getattr(importlib.import_module(module), attribute)())


def family_of(header: Header) -> Family:
    """Raises UnknownFamily."""
    detected = detect(header)
    if detected is None:
        raise unknown(header)
    return family(detected.family)


def detect_denoiser(header: Header) -> Detected | None:
    """Which family a denoiser alone in a file is of."""
    return _first(header, (module.detect_denoiser(header) for module in discover().values()))


def family_of_denoiser(header: Header) -> Family:
    """Of a denoiser alone in a file. Raises UnknownFamily."""
    detected = detect_denoiser(header)
    if detected is None:
        raise unknown(header)
    return family(detected.family)


def family_of_vae(header: Header) -> Family:
    """Of a VAE alone in a file. Raises UnknownFamily."""
    for name, module in discover().items():
        if module.detect_vae(header):
            return family(name)
    raise unknown(header)


def family_of_clip(headers: Sequence[Header], type: str) -> Family:
    """Of text encoders alone in files, `type` as CLIPLoader has it. Raises UnknownTextEncoders."""
    for name, module in discover().items():
        if type in module.SPEC.clip_types and module.detect_clip(headers):
            return family(name)
    raise UnknownTextEncoders(paths=", ".join(header.path.name for header in headers), type=type)


def unknown(header: Header) -> UnknownFamily:
    """The error for a file that no family takes, saying what it seems to be."""
    info = identify(header)
    seems = f"{info.kind}, {info.family_title}" if info.family else info.kind
    return UnknownFamily(path=header.path, known=", ".join(spec.title for spec in specs()), seems=seems)


def _first(header: Header, answers: Iterable[Detected | None]) -> Detected | None:
    detected = next((one for one in answers if one is not None), None)
    return detected and few_steps(detected, header)
