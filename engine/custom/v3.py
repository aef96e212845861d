"""A V3 node class (io.ComfyNode with a schema) as a node type of ours. It knows no packs and no files."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.custom.hidden import hidden_value
from engine.custom.host import host, within
from engine.custom.links import lent, lent_all
from engine.custom.plain import plain
from engine.custom.surface.comfy_api.latest import io
from engine.custom.v1 import BadNodeClass, awaited, taken, takes_any
from engine.graph.context import CallContext
from engine.graph.node import Blocker, Declaration, In, Out
from engine.graph.registry import Input, NodeType, WholeHook


def is_v3(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, io.ComfyNode)


def node_type_of(cls: type[io.ComfyNode], module: str) -> NodeType:
    """Raises BadNodeClass, and whatever its define_schema raises."""
    schema = cls.GET_SCHEMA()
    if not isinstance(schema, io.Schema):
        raise BadNodeClass(name=cls.__name__, reason="its define_schema returned no Schema")
    inputs = {one.id: _input(one) for one in schema.inputs}
    return NodeType(
        name=schema.node_id,
        declaration=_declaration(cls, schema),
        inputs=inputs,
        call=_Call(cls, schema),
        is_async=inspect.iscoroutinefunction(cls.execute),
        module=module,
        lazy=frozenset(name for name, one in inputs.items() if one.declared.lazy),
        hidden_names={one.name: one.value for one in schema.hidden} or None,
        undeclared=functools.partial(_undeclared, schema.accept_all_inputs),
    )


@dataclass(frozen=True)
class _Call:
    cls: type[io.ComfyNode]
    schema: io.Schema

    def __call__(self, ctx: CallContext, /, **inputs: Any) -> Any:
        running = _running(self.cls, self.schema, ctx)
        lend = lent_all if self.schema.is_input_list else lent
        arguments = {name: lend(value) for name, value in inputs.items()}
        result = within(ctx, lambda: running.execute(**arguments))
        if inspect.iscoroutine(result):
            return _told_later(awaited(ctx, result), self.schema)
        return _told(result, self.schema)


class _Locked(type):
    """The class that runs is a copy of its own, with what the node asked for; nothing can be left in it."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise AttributeError(f"{cls.__name__}.{name} can't be set: a node keeps no state")


def _running(cls: type[io.ComfyNode], schema: io.Schema, ctx: CallContext | None) -> type[io.ComfyNode]:
    asked = {one.name: hidden_value(one.value, ctx) for one in schema.hidden} if ctx else {}
    kind = type("Locked", (_Locked, type(cls)), {}) if type(cls) is not type else _Locked
    return kind(cls.__name__, (cls,), {"hidden": io.HiddenHolder(**asked), "__module__": cls.__module__})


def _told(result: Any, schema: io.Schema) -> Any:
    """What `execute` returned, in the form that the executor knows."""
    if not isinstance(result, io.NodeOutput):
        return result
    if result.block_execution is not None:
        return {"result": Blocker(result.block_execution), "ui": _shown(result.ui)}
    told: dict[str, Any] = {"result": result.args}
    if result.ui is not None:
        told["ui"] = _shown(result.ui)
    if result.expand is not None:
        told["expand"] = result.expand
    return told


async def _told_later(coroutine: Any, schema: io.Schema) -> Any:
    return _told(await coroutine, schema)


def _shown(ui: Any) -> Any:
    return ui.as_dict() if hasattr(ui, "as_dict") else ui


def _declaration(cls: type[io.ComfyNode], schema: io.Schema) -> Declaration:
    return Declaration(
        name=schema.node_id,
        title=schema.display_name or schema.node_id,
        title_zh="",
        category=schema.category,
        description=schema.description or "",
        outputs=tuple(_output(one) for one in schema.outputs),
        hidden=tuple(one.value for one in schema.hidden),
        output_node=schema.is_output_node,
        input_is_list=schema.is_input_list,
        not_idempotent=schema.not_idempotent,
        has_intermediate_output=schema.has_intermediate_output,
        deprecated=schema.is_deprecated,
        experimental=schema.is_experimental,
        search_aliases=tuple(schema.search_aliases or ()),
        internal=False,
        fingerprint=_fingerprint(cls, schema),
        validate=_validate(cls, schema),
        check_lazy=_check_lazy(cls, schema),
    )


def _fingerprint(cls: type[io.ComfyNode], schema: io.Schema) -> WholeHook | None:
    def fingerprint(ctx: CallContext, values: Mapping[str, Any]) -> Any:
        method = _running(cls, schema, ctx).fingerprint_inputs  # type: ignore[attr-defined]
        return plain(within(ctx, lambda: method(**taken(method, values))))

    return WholeHook(fingerprint) if _has(cls, "fingerprint_inputs") else None


def _validate(cls: type[io.ComfyNode], schema: io.Schema) -> WholeHook | None:
    method: Callable[..., Any] | None = getattr(cls, "validate_inputs", None)
    if not callable(method):
        return None
    names = None if takes_any(method) else tuple(inspect.signature(method).parameters)
    return WholeHook(lambda workspace, values: method(**taken(method, values)), names)


def _check_lazy(cls: type[io.ComfyNode], schema: io.Schema) -> WholeHook | None:
    def check(ctx: CallContext, values: Mapping[str, Any]) -> Any:
        method = _running(cls, schema, ctx).check_lazy_status  # type: ignore[attr-defined]
        return within(ctx, lambda: method(**taken(method, values)))

    return WholeHook(check) if _has(cls, "check_lazy_status") else _everything(schema)


def _everything(schema: io.Schema) -> WholeHook | None:
    """A node with lazy inputs that does not say which it needs gets all of them."""
    lazy = [one.id for one in schema.inputs if one.options.get("lazy")]
    return WholeHook(lambda ctx, values: [name for name in lazy if values.get(name) is None]) if lazy else None


def _has(cls: type, name: str) -> bool:
    return callable(getattr(cls, name, None))


def _input(one: io.sockets.Input) -> Input:
    kind, options = one.kind
    return Input(one.id, In(kind, lazy=bool(options.get("lazy")) or None, extra=options), one.optional)


def _output(one: io.sockets.Output) -> Out:
    return Out(one.get_io_type(), one.display_name or "", one.is_output_list, one.tooltip or "")


def _undeclared(all_inputs: bool, name: str, linked: bool) -> Input | None:
    return Input(name, In("*"), optional=True) if all_inputs else None


def classes_of(extension: Any) -> list[type[io.ComfyNode]]:
    """The nodes of what a pack's comfy_entrypoint returned. Runs what is to be awaited."""
    import asyncio

    async def ask() -> list[type[io.ComfyNode]]:
        found = extension() if callable(extension) else extension
        made: Any = await found if inspect.isawaitable(found) else found
        loading = made.on_load()
        if inspect.isawaitable(loading):
            await loading
        listed = made.get_node_list()
        return await listed if inspect.isawaitable(listed) else listed

    assert host()
    return asyncio.run(ask())
