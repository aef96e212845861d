"""Graph nodes by subject. Each module holds `@node` functions; importing them needs torch."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.graph.registry import Registry


def load_all(registry: Registry) -> None:
    """Import every module of this package and register its nodes."""
    for module in sorted(iter_modules(__path__), key=lambda module: module.name):
        registry.add_module(import_module(f"{__name__}.{module.name}"))
