"""Which families there are: every module of this package that has a SPEC. Torch-free, so that the server can ask."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from types import ModuleType
from typing import cast

import engine.families
from engine.errors import FileError
from engine.families.base import Detected, Family, FamilySpec
from engine.weights.header import Header
from engine.weights.identify import identify


class UnknownFamily(FileError):
    en = "{path} is no checkpoint of a model family known here ({known}). It seems to be: {seems}."
    zh = "{path} 不是此处已知模型系列（{known}）的检查点。它看起来是：{seems}。"


@lru_cache(maxsize=1)
def discover() -> dict[str, ModuleType]:
    """Family modules by name, in alphabetical order. Adding a family = adding a file."""
    names = sorted(m.name for m in pkgutil.iter_modules(engine.families.__path__) if not m.ispkg)
    modules = (importlib.import_module(f"engine.families.{name}") for name in names if name not in ("base", "discover"))
    return {module.SPEC.name: module for module in modules if hasattr(module, "SPEC")}


def specs() -> list[FamilySpec]:
    return [module.SPEC for module in discover().values()]


def detect(header: Header) -> Detected | None:
    """Which family a checkpoint is of, by its header; None when no family knows it."""
    found = (module.detect(header) for module in discover().values())
    return next((detected for detected in found if detected is not None), None)


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


def family_of_vae(header: Header) -> Family:
    """Of a VAE alone in a file. Raises UnknownFamily."""
    for name, module in discover().items():
        if hasattr(module, "detect_vae") and module.detect_vae(header):
            return family(name)
    raise unknown(header)


def unknown(header: Header) -> UnknownFamily:
    """The error for a file that no family takes, saying what it seems to be."""
    info = identify(header)
    seems = f"{info.kind}, {info.family_title}" if info.family else info.kind
    return UnknownFamily(path=header.path, known=", ".join(spec.title for spec in specs()), seems=seems)
