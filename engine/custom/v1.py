"""A V1 node class (INPUT_TYPES, RETURN_TYPES, FUNCTION ...) as a node type of ours. It knows no packs and no files.

What a class declares is read once, when its pack is loaded; the lists to choose from are read again whenever somebody
asks for them. An instance is made for each node of a prompt and kept, as such classes expect.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.custom.hidden import hidden_value
from engine.custom.host import within
from engine.custom.links import lent, lent_all
from engine.custom.plain import plain
from engine.errors import GraphError
from engine.graph.context import CallContext
from engine.graph.node import Declaration, In, Out
from engine.graph.registry import Input, NodeType, WholeHook

FARTHEST_SLOT = 10_000  # a RETURN_TYPES that has this one has any


class BadNodeClass(GraphError):
    en = "The node class {name} can't be used: {reason}."
    zh = "无法使用节点类 {name}：{reason}。"


def node_type_of(name: str, cls: type, title: str, module: str) -> NodeType:
    """Raises BadNodeClass for what is no node class, and whatever its INPUT_TYPES raises."""
    function = getattr(cls, "FUNCTION", None)
    run = getattr(cls, function, None) if isinstance(function, str) else None
    if not callable(getattr(cls, "INPUT_TYPES", None)) or run is None:
        raise BadNodeClass(name=name, reason="it lacks INPUT_TYPES or the method that FUNCTION names")
    assert isinstance(function, str)
    groups = cls.INPUT_TYPES()  # type: ignore[attr-defined]
    inputs = {item.name: item for item in _inputs(groups)}
    hidden = {str(key): _kind(kind) for key, kind in (groups.get("hidden") or {}).items()}
    whole = bool(getattr(cls, "INPUT_IS_LIST", False))
    call = _Call(name, cls, function, tuple(hidden.items()), whole)
    return NodeType(
        name=name,
        declaration=_declaration(name, cls, title, hidden, whole),
        inputs=inputs,
        call=call.unbound,
        is_async=inspect.iscoroutinefunction(run),
        module=module,
        lazy=frozenset(item.name for item in inputs.values() if item.declared.lazy),
        bind=_Bind(call, cls),
        hidden_names=hidden or None,
        undeclared=functools.partial(_undeclared, groups.get("optional"), takes_any(run)),
        any_slot=_has_any_slot(getattr(cls, "RETURN_TYPES", ())),
    )


def fresh(kind: NodeType) -> NodeType:
    """The same with the inputs that its class declares now: lists to choose from change."""
    cls = getattr(kind.bind, "cls", None)
    if cls is None:
        return kind
    try:
        inputs = {item.name: item for item in _inputs(cls.INPUT_TYPES())}
    except (Exception, SystemExit):  # code of others; what it said when it was loaded still stands
        return kind
    return replace(kind, inputs=inputs)


@dataclass(frozen=True)
class _Bind:
    """Makes an instance for a node of a prompt."""

    call: _Call
    cls: type

    def __call__(self) -> _Instance:
        return _Instance(self.call, self.cls())


@dataclass(frozen=True)
class _Call:
    """How a method of the class is called: what it takes beside its inputs."""

    name: str
    cls: type
    function: str
    hidden: tuple[tuple[str, str], ...]
    whole: bool

    def __call__(self, instance: Any, ctx: CallContext, inputs: Mapping[str, Any]) -> Any:
        method = getattr(instance, self.function)
        lend = lent_all if self.whole else lent
        arguments = {**{name: lend(value) for name, value in inputs.items()}, **self.hidden_inputs(ctx)}
        result = within(ctx, lambda: method(**arguments))
        return awaited(ctx, result) if inspect.iscoroutine(result) else result

    def hidden_inputs(self, ctx: CallContext) -> dict[str, Any]:
        values = {name: hidden_value(kind, ctx) for name, kind in self.hidden}
        return {name: [value] for name, value in values.items()} if self.whole else values

    def unbound(self, ctx: CallContext, /, **inputs: Any) -> Any:
        """A call beside any prompt, on an instance of its own."""
        return self(self.cls(), ctx, inputs)


class _Instance:
    """One node of a prompt."""

    def __init__(self, call: _Call, instance: Any) -> None:
        self._call = call
        self._instance = instance
        method = getattr(instance, "check_lazy_status", None)
        self.check_lazy = WholeHook(functools.partial(self._check, method)) if callable(method) else None

    def __call__(self, ctx: CallContext, /, **inputs: Any) -> Any:
        return self._call(self._instance, ctx, inputs)

    def _check(self, method: Callable[..., Any], ctx: CallContext, values: Mapping[str, Any]) -> Any:
        wanted = taken(method, {**values, **self._call.hidden_inputs(ctx)})
        return within(ctx, lambda: method(**wanted))


def taken(function: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that the function has parameters for."""
    if takes_any(function):
        return dict(values)
    return {name: values[name] for name in inspect.signature(function).parameters if name in values}


async def awaited(ctx: CallContext, coroutine: Any) -> Any:
    """The coroutine in a task whose context knows the call."""
    from engine.custom.host import host

    host().current.set(ctx)
    return await coroutine


def _declaration(name: str, cls: type, title: str, hidden: Mapping[str, str], whole: bool) -> Declaration:
    def said(attribute: str, default: Any) -> Any:
        return getattr(cls, attribute, default)

    return Declaration(
        name=name,
        title=title or name,
        title_zh="",
        category=str(said("CATEGORY", "")),
        description=str(said("DESCRIPTION", "") or ""),
        outputs=tuple(_outputs(cls)),
        hidden=tuple(hidden.values()),
        output_node=bool(said("OUTPUT_NODE", False)),
        input_is_list=whole,
        not_idempotent=bool(said("NOT_IDEMPOTENT", False)),
        has_intermediate_output=bool(said("HAS_INTERMEDIATE_OUTPUT", False)),
        deprecated=bool(said("DEPRECATED", False)),
        experimental=bool(said("EXPERIMENTAL", False)),
        search_aliases=tuple(map(str, said("SEARCH_ALIASES", ()))),
        internal=False,
        fingerprint=_fingerprint(cls),
        validate=_validate(cls),
        check_lazy=None,  # a method of the instance: see _Instance
    )


def _fingerprint(cls: type) -> WholeHook | None:
    method = getattr(cls, "IS_CHANGED", None)
    if not callable(method):
        return None

    def fingerprint(ctx: CallContext, values: Mapping[str, Any]) -> Any:
        wanted = taken(method, values)
        return plain(within(ctx, lambda: method(**wanted)))

    return WholeHook(fingerprint)


def _validate(cls: type) -> WholeHook | None:
    method = getattr(cls, "VALIDATE_INPUTS", None)
    if not callable(method):
        return None
    names = None if takes_any(method) else tuple(inspect.signature(method).parameters)
    return WholeHook(lambda workspace, values: method(**taken(method, values)), names)


def _inputs(groups: Mapping[str, Any]) -> Iterator[Input]:
    for group in ("required", "optional"):
        for name, spec in (groups.get(group) or {}).items():
            yield _input(str(name), spec, group == "optional")


def _input(name: str, spec: Any, optional: bool) -> Input:
    kind, options = _parts(spec)
    return Input(name, In(kind, lazy=bool(options.get("lazy")) or None, extra=options), optional)


def _parts(spec: Any) -> tuple[Any, dict[str, Any]]:
    """(type or list of choices, options) of what stands for an input."""
    parts = spec if isinstance(spec, list | tuple) else (spec,)
    options = parts[1] if len(parts) > 1 and isinstance(parts[1], Mapping) else {}
    kind = parts[0] if parts else "*"
    choices = [plain(one) for one in kind] if isinstance(kind, list | tuple | set) else _kind(kind)
    return choices, {str(name): plain(value) for name, value in options.items()}


def _kind(kind: Any) -> str:
    """A socket type. A str that never differs from another is how packs write "any type"."""
    if isinstance(kind, list | tuple):
        return _kind(kind[0]) if kind else "*"
    never_differs = type(kind) is not str and not kind.__ne__("\0 no type")
    return "*" if never_differs else str(kind)


def _undeclared(optional: Any, keywords: bool, name: str, linked: bool) -> Input | None:
    """Links beside the declared inputs reach a function that takes keyword arguments at large; and an `optional` that
    claims to hold every name is asked."""
    if linked and keywords:
        return Input(name, In("*"), optional=True)
    if type(optional) is not dict and isinstance(optional, Mapping) and name in optional:
        return _input(name, optional[name], optional=True)
    return None


def _outputs(cls: type) -> Iterator[Out]:
    types = getattr(cls, "RETURN_TYPES", ())
    names = getattr(cls, "RETURN_NAMES", None) or ()
    lists = getattr(cls, "OUTPUT_IS_LIST", None) or ()
    tips = getattr(cls, "OUTPUT_TOOLTIPS", None) or ()
    for slot, kind in enumerate(types):
        yield Out(
            "COMBO" if isinstance(kind, list | tuple) else _kind(kind),
            str(names[slot]) if slot < len(names) else "",
            bool(lists[slot]) if slot < len(lists) else False,
            str(tips[slot]) if slot < len(tips) else "",
        )


def _has_any_slot(types: Any) -> bool:
    if type(types) in (tuple, list):
        return False
    try:
        types[FARTHEST_SLOT]
    except Exception:  # code of others: whatever it raises, there is no such slot
        return False
    return True


def takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
