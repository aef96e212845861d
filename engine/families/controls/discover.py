"""Which kind a control network's file is of: every module of this package with a KIND is asked. Torch-free."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import engine.families.controls
from engine.families.controls.base import ControlKind, ControlNet, NotAControlNet
from engine.families.discover import discover
from engine.weights.identify import identify

if TYPE_CHECKING:
    from engine.families.base import Model
    from engine.models.manager import ModelManager


@lru_cache(maxsize=1)
def kinds() -> tuple[ControlKind, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(engine.families.controls.__path__))
    modules = [importlib.import_module(f"{engine.families.controls.__name__}.{name}") for name in names]
    return tuple(kind for module in modules for kind in getattr(module, "KINDS", ()))


def load_controlnet(
    manager: ModelManager, path: Path, base: Model | None = None, *, allow_pickle: bool = False
) -> ControlNet:
    """Raises NotAControlNet for a file that no kind knows."""
    from engine.weights.load import open_header

    header = open_header(path, allow_pickle=allow_pickle)
    kind = next((kind for kind in kinds() if kind.detect(header)), None)
    if kind is None:
        info = identify(header)
        seems = f"{info.kind}, {info.family_title}" if info.family else info.kind
        known = ", ".join(module.SPEC.title for module in discover().values())
        raise NotAControlNet(path=path, seems=seems, known=known)
    return kind.load(manager, path, base, allow_pickle=allow_pickle)
