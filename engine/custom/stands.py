"""A class that packs name in annotations and isinstance, standing for one of the studio's. It makes none."""

from __future__ import annotations

from typing import Any


def stands_for(own: type, name: str, instead: str) -> type:
    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, own)

        def __call__(cls, *_: Any, **__: Any) -> Any:
            raise TypeError(f"{name} can't be made by a node pack in Easel. Use {instead} (docs/custom-nodes.md).")

    return Kind(name.rpartition(".")[2], (), {})
