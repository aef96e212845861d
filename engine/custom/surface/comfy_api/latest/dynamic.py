"""V3 inputs of several types, and those that stand for several inputs (engine/graph/dynamic.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from engine.custom.surface.comfy_api.latest.sockets import AnyType, ComfyType, Input, Output, WidgetInput
from engine.graph import dynamic as graph


def grouped(inputs: Sequence[Input]) -> dict[str, dict[str, Any]]:
    """{"required": {id: [type, options]}, "optional": ...}"""
    found: dict[str, dict[str, Any]] = {"required": {}}
    for one in inputs:
        found.setdefault("optional" if one.optional else "required", {})[one.id] = one.kind
    return found


class MultiType(ComfyType):
    """One input that takes several types."""

    class Input(Input):
        def __init__(self, id: str | WidgetInput, types: Sequence[type[ComfyType]], *more: Any, **options: Any) -> None:
            widget = id if isinstance(id, WidgetInput) else None
            if widget is not None:
                options = {**widget.options, **{name: value for name, value in options.items() if value is not None}}
                optional = bool(options.pop("optional", widget.optional))
                tooltip = options.pop("tooltip", None)
                super().__init__(widget.id, None, optional, tooltip, extra_dict=options)
                kinds = [widget.get_io_type(), *(one.io_type for one in types)]
            else:
                super().__init__(str(id), *more, **options)
                kinds = [one.io_type for one in types]
            self._kinds = list(dict.fromkeys(kinds))

        def get_io_type(self) -> str:
            return ",".join(self._kinds)


class MatchType(ComfyType):
    """Inputs and outputs whose types are the same, whichever that is."""

    class Template:
        def __init__(self, template_id: str, allowed_types: Any = AnyType) -> None:
            allowed = allowed_types if isinstance(allowed_types, list | tuple) else [allowed_types]
            self.template_id = template_id
            self.allowed_types = list(allowed)

        def as_dict(self) -> dict[str, Any]:
            return {"template_id": self.template_id, "allowed_types": ",".join(t.io_type for t in self.allowed_types)}

    class Input(Input):
        io_type: ClassVar[str] = graph.MATCH_TYPE

        def __init__(self, id: str, template: MatchType.Template, *more: Any, **options: Any) -> None:
            super().__init__(id, *more, **options)
            self.template = template
            self.options["template"] = template.as_dict()

    class Output(Output):
        io_type: ClassVar[str] = graph.MATCH_TYPE

        def __init__(self, template: MatchType.Template, *more: Any, **options: Any) -> None:
            super().__init__(*more, **options)
            self.template = template


class Autogrow(ComfyType):
    """A list of inputs that grows in the editor. The node gets a dict by slot."""

    Type: ClassVar[Any] = dict[str, Any]

    class _AutogrowTemplate:
        options: dict[str, Any]

    class TemplatePrefix(_AutogrowTemplate):
        def __init__(self, input: Input, prefix: str, min: int = 1, max: int = 10) -> None:
            self.options = {"input": _slot(input), "prefix": prefix, "min": min, "max": max}

    class TemplateNames(_AutogrowTemplate):
        def __init__(self, input: Input, names: Sequence[str], min: int = 1) -> None:
            self.options = {"input": _slot(input), "names": list(names), "min": min}

    class Input(Input):
        io_type: ClassVar[str] = graph.AUTOGROW

        def __init__(self, id: str, template: Autogrow._AutogrowTemplate, *more: Any, **options: Any) -> None:
            super().__init__(id, *more, **options)
            self.options["template"] = template.options


class DynamicCombo(ComfyType):
    """Choices that bring inputs of their own. The node gets a dict: the choice under the input's id, and those."""

    Type: ClassVar[Any] = dict[str, Any]

    @dataclass
    class Option:
        key: str
        inputs: Sequence[Input]

        def as_dict(self) -> dict[str, Any]:
            return {"key": self.key, "inputs": grouped(self.inputs)}

    class Input(Input):
        io_type: ClassVar[str] = graph.DYNAMIC_COMBO

        def __init__(self, id: str, options: Sequence[DynamicCombo.Option], *more: Any, **about: Any) -> None:
            super().__init__(id, *more, **about)
            self.options["options"] = [option.as_dict() for option in options]


class DynamicSlot(ComfyType):
    """An input that brings others when something is connected to it."""

    Type: ClassVar[Any] = dict[str, Any]

    class Input(Input):
        io_type: ClassVar[str] = graph.DYNAMIC_SLOT

        def __init__(self, slot: Input, inputs: Sequence[Input], *more: Any, **options: Any) -> None:
            super().__init__(slot.id, *more, **{"optional": slot.optional, **options})
            self.options["slotType"] = slot.get_io_type()
            self.options["inputs"] = grouped(inputs)


def _slot(input: Input) -> Mapping[str, Any]:
    """A slot is always a socket, also of what has a widget elsewhere."""
    groups = grouped([input])
    for inputs in groups.values():
        for kind in inputs.values():
            if isinstance(input, WidgetInput):
                kind[1] = {**kind[1], "forceInput": True}
    return groups
