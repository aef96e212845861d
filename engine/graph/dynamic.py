"""Inputs that depend on other inputs: lists that grow, choices that bring inputs of their own, slots that do.

In a prompt they are flat: "images.image0", "mode" and "mode.width". A node gets them nested: images={"image0": ...},
mode={"mode": "resize", "width": ...}. The declarations are ComfyUI's, as its /object_info shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

AUTOGROW, DYNAMIC_COMBO, DYNAMIC_SLOT = "COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3", "COMFY_DYNAMICSLOT_V3"
MATCH_TYPE = "COMFY_MATCHTYPE_V3"
DYNAMIC = frozenset((AUTOGROW, DYNAMIC_COMBO, DYNAMIC_SLOT))
MOST_SLOTS = 100


@dataclass(frozen=True)
class Spec:
    """One declared input: its socket type or choices, its options, and whether it must be there."""

    kind: Any
    options: Mapping[str, Any]
    required: bool

    @staticmethod
    def of(written: Any, required: bool) -> Spec:
        """From [type, options] as in /object_info."""
        parts: list[Any] = list(written) if isinstance(written, list | tuple) else [written]
        options = parts[1] if len(parts) > 1 and isinstance(parts[1], Mapping) else {}
        return Spec(parts[0], options, required)


@dataclass(frozen=True)
class Live:
    """An input that counts now, and where a node finds its value."""

    spec: Spec
    path: tuple[str, ...]
    brings: bool = False  # its value decides which other inputs there are


def specs_of(groups: Mapping[str, Any]) -> dict[str, Spec]:
    """{name: spec} of {"required": {...}, "optional": {...}}."""
    return {
        name: Spec.of(written, group == "required")
        for group in ("required", "optional")
        for name, written in (groups.get(group) or {}).items()
    }


def live(specs: Mapping[str, Spec], given: Mapping[str, Any]) -> dict[str, Live]:
    """The inputs that count when `given` is what a prompt says: {flat name: input}."""
    found: dict[str, Live] = {}
    for name, spec in specs.items():
        found.update(_live((name,), spec, given))
    return found


def nested(dynamic: Iterable[str], inputs: Mapping[str, Live], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a node takes them. `dynamic` are its dynamic inputs; each is a dict in the order of its slots, if an
    empty one."""
    found: dict[str, Any] = {name: {} for name in dynamic}
    for name, one in inputs.items():
        if name in arguments:
            place = found
            for part in one.path[:-1]:
                place = place.setdefault(part, {})
            place[one.path[-1]] = arguments[name]
    return found | {name: value for name, value in arguments.items() if name not in inputs}


def first_slots(spec: Spec) -> list[tuple[str, Spec]]:
    """The slots of a list that grows which are there while nothing is linked: one more than must be."""
    least = (spec.options.get("template") or {}).get("min", 1)
    return list(_slots(spec))[: least + 1]


def _live(path: tuple[str, ...], spec: Spec, given: Mapping[str, Any]) -> Iterator[tuple[str, Live]]:
    name = ".".join(path)
    if spec.kind == AUTOGROW:
        for slot, inner in _slots(spec):
            yield from _live((*path, slot), inner, given)
    elif spec.kind == DYNAMIC_COMBO:
        options = spec.options.get("options") or ()
        choices = Spec("COMBO", {**spec.options, "options": [option["key"] for option in options]}, spec.required)
        yield name, Live(choices, (*path, path[-1]), any(option.get("inputs") for option in options))
        chosen = given.get(name)
        for option in options:
            if option["key"] == chosen:
                yield from _inside(path, option.get("inputs") or {}, given)
    elif spec.kind == DYNAMIC_SLOT:
        yield name, Live(Spec(spec.options.get("slotType", "*"), spec.options, spec.required), (*path, path[-1]))
        if given.get(name) is not None:
            yield from _inside(path, spec.options.get("inputs") or {}, given)
    else:
        yield name, Live(spec, path)


def _inside(path: tuple[str, ...], groups: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[tuple[str, Live]]:
    for name, spec in specs_of(groups).items():
        yield from _live((*path, name), spec, given)


def _slots(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """The slots of a list that grows. Those below its minimum must be there."""
    template = spec.options.get("template") or {}
    inner = next(iter(specs_of(template.get("input") or {}).values()), Spec("*", {}, True))
    names = template.get("names")
    if names is None:
        names = [f"{template.get('prefix', '')}{number}" for number in range(min(template.get("max", 10), MOST_SLOTS))]
    least = template.get("min", 1)
    for place, slot in enumerate(names[:MOST_SLOTS]):
        yield slot, Spec(inner.kind, inner.options, spec.required and inner.required and place < least)
