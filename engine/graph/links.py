"""What a value in a prompt is: a link to another node, or a constant."""

from __future__ import annotations

from typing import Any


def is_link(value: Any) -> bool:
    """[node id, slot]"""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) in (int, float)


def unwrapped(value: Any) -> Any:
    """A literal list travels as {"__value__": [...]}, so that it is not taken for a link."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value
