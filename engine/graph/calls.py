"""From inputs to calls of a node and from what the calls gave to outputs: ComfyUI's lists, blockers and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.graph.errors import BadResult
from engine.graph.links import is_link
from engine.graph.node import Blocker
from engine.graph.registry import NodeType

Values = dict[str, list[Any]]  # inputs of a node, every one as a list


@dataclass(slots=True)
class Call:
    """What one call of a node gave. With `expand`, links in `result` are to nodes of that graph or of the prompt."""

    result: Sequence[Any]
    ui: Mapping[str, Any] | None = None
    expand: Mapping[str, Any] | None = None


def mapped(values: Values, input_is_list: bool) -> Iterator[dict[str, Any]]:
    """The arguments of each call: lists are walked together, a shorter one repeats its last value. An empty list means
    no calls, and so empty outputs."""
    if input_is_list:
        yield dict(values)
    elif all(values.values()):
        for index in range(max(map(len, values.values()), default=1)):
            yield {name: value[index] if index < len(value) else value[-1] for name, value in values.items()}


def blocker_in(arguments: Mapping[str, Any], input_is_list: bool) -> Blocker | None:
    """The first blocker among the arguments of a call."""
    for value in arguments.values():
        for one in value if input_is_list else (value,):
            if isinstance(one, Blocker):
                return one
    return None


def call_of(node_type: NodeType, result: Any) -> Call:
    """What a node returned, whichever of the allowed forms it took. Raises BadResult for any other."""
    match result:
        case None:
            return Call(())
        case tuple() | list():
            return Call(result)
        case Blocker():
            return Call([result] * len(node_type.outputs))
        case dict():
            values = result.get("result") or ()
            if isinstance(values, Blocker):
                values = [values] * len(node_type.outputs)
            return Call(values, result.get("ui"), result.get("expand"))
    raise BadResult(class_type=node_type.name, got=type(result).__name__)


def merged(
    node_type: NodeType, calls: Sequence[Call], result_of: Callable[[Sequence[Any]], list[Any]]
) -> list[list[Any]]:
    """Per output the values of all calls, one after another; outputs that are lists are joined. `result_of(link)` gives
    the values of a link in an expansion's result."""
    outputs = node_type.outputs
    found: list[list[Any]] = [[] for _ in range(max([len(outputs), *(len(call.result) for call in calls)]))]
    for call in calls:
        for slot, value in enumerate(call.result):
            is_list = slot < len(outputs) and outputs[slot].is_list
            if call.expand is not None and is_link(value):
                found[slot].extend(result_of(value))
            elif is_list and not isinstance(value, Blocker):
                found[slot].extend(value)
            else:
                found[slot].append(value)
    return found


def merged_ui(calls: Sequence[Call]) -> dict[str, Any] | None:
    """What the calls show, joined by key."""
    found: dict[str, list[Any]] = {}
    for call in calls:
        for key, shown in (call.ui or {}).items():
            found.setdefault(key, []).extend(shown if isinstance(shown, list | tuple) else [shown])
    return found or None


def shown_inputs(values: Values | None) -> Values:
    """Inputs for an error message: plain values as they are, others by what they are."""
    return {name: [_shown(value) for value in some[:20]] for name, some in (values or {}).items()}


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:1000]
    if hasattr(value, "shape"):
        return f"{type(value).__name__}{tuple(value.shape)} {getattr(value, 'dtype', '')}".strip()
    return f"{type(value).__module__}.{type(value).__qualname__}"
