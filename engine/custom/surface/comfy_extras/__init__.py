"""`comfy_extras`: any of its modules, whose classes are the studio's nodes by class_type."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from engine.custom.links import missing
from engine.custom.surface import nodes


class Extras(ModuleType):
    """`comfy_extras.nodes_mask` and the like."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name in nodes.NODE_CLASS_MAPPINGS:
            return nodes.NODE_CLASS_MAPPINGS[name]
        raise missing(self.__name__, name, "the studio's nodes, by the class_type that GET /object_info lists")
