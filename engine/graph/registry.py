"""The node types there are: what the executor runs and what the catalogue describes. Torch-free; loads no nodes.

A `NodeType` comes from a function under `@node`. Others (ComfyUI's node classes) can come in the same shape.
"""

from __future__ import annotations

import builtins
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Protocol, get_args, get_origin

from engine.graph.dynamic import DYNAMIC, Spec, live, nested
from engine.graph.links import is_link
from engine.graph.node import Choices, Declaration, In, Out
from engine.graph.shapes import AXES


@dataclass(frozen=True)
class Input:
    name: str
    declared: In
    optional: bool

    @property
    def socket(self) -> str:
        """The socket type; "COMBO" for choices."""
        return self.declared.type if isinstance(self.declared.type, str) else "COMBO"


class Bound(Protocol):
    """What one node of a prompt keeps from prompt to prompt: an instance of its class."""

    @property
    def check_lazy(self) -> Callable[..., Any] | None: ...

    def __call__(self, ctx: Any, /, **inputs: Any) -> Any: ...


@dataclass(frozen=True, eq=False)
class NodeType:
    """One class_type. `call(ctx, **inputs)` runs it; the hooks are as in engine/graph/node.py."""

    name: str
    declaration: Declaration
    inputs: Mapping[str, Input]
    call: Callable[..., Any]
    is_async: bool
    module: str
    lazy: frozenset[str] = field(default=frozenset())
    bind: Callable[[], Bound] | None = None  # an instance for one node of a prompt; it runs and checks instead
    hidden_names: Mapping[str, str] | None = None  # {name: kind}; None: the kinds in lower case
    undeclared: Callable[[str, bool], Input | None] = lambda name, linked: None  # an input it takes all the same
    any_slot: bool = False  # it may be asked for more outputs than it declares

    @property
    def outputs(self) -> tuple[Out, ...]:
        return self.declaration.outputs

    def input(self, name: str, linked: bool) -> Input | None:
        """A declared input, or one that it takes all the same; None for what it does not take."""
        return self.inputs.get(name) or self.undeclared(name, linked)

    @cached_property
    def dynamic(self) -> dict[str, Spec]:
        """Those of its inputs that stand for several: see engine/graph/dynamic.py."""
        return {
            item.name: Spec(item.declared.type, item.declared.extra, not item.optional)
            for item in self.inputs.values()
            if isinstance(item.declared.type, str) and item.declared.type in DYNAMIC
        }

    @cached_property
    def shaped(self) -> dict[str, str]:
        """Those inputs of our own nodes whose shapes are looked at: see engine/graph/shapes.py."""
        own = self.module.startswith("engine.nodes.")
        return {item.name: item.socket for item in self.inputs.values() if own and item.socket in AXES}

    def nested(self, arguments: Mapping[str, Any], whole: bool = False) -> Mapping[str, Any]:
        """Arguments as the node takes them; with `whole` each is a list."""
        if not self.dynamic:
            return arguments
        given = {name: value[0] if value else None for name, value in arguments.items()} if whole else arguments
        return nested(self.dynamic, live(self.dynamic, given), arguments)

    def taken(self, written: Mapping[str, Any]) -> Iterator[tuple[Input, Any]]:
        """What of a prompt's inputs it takes, with the values that are written there."""
        inputs = live(self.dynamic, written) if self.dynamic else {}
        for name, value in written.items():
            if name in inputs:
                yield _input_of(name, inputs[name].spec), value
            elif name not in self.dynamic:
                found = self.input(name, is_link(value))
                if found is not None:
                    yield found, value

    @staticmethod
    def of(function: Callable[..., Any]) -> NodeType:
        declaration = getattr(function, "__node__", None)
        if not isinstance(declaration, Declaration):
            raise TypeError(f"{function!r} is not declared with @node")
        inputs = {i.name: i for i in _inputs_of(function, named=not declaration.inputs)}
        inputs |= {name: Input(name, declared, optional=False) for name, declared in declaration.inputs.items()}
        return NodeType(
            name=declaration.name,
            declaration=declaration,
            inputs=inputs,
            call=_gathering(function, declaration.inputs) if declaration.inputs else function,
            is_async=inspect.iscoroutinefunction(function),
            module=function.__module__,
            lazy=frozenset(name for name, i in inputs.items() if i.declared.lazy),
        )


def _input_of(name: str, spec: Spec) -> Input:
    options = dict(spec.options)
    return Input(name, In(spec.kind, lazy=bool(options.get("lazy")) or None, extra=options), not spec.required)


class Registry:
    """Node types by class_type. A name may be taken once."""

    def __init__(self, functions: Iterable[Callable[..., Any]] = ()) -> None:
        self._types: dict[str, NodeType] = {}
        for function in functions:
            self.add(function)

    def add(self, function: Callable[..., Any]) -> NodeType:
        return self.add_type(NodeType.of(function))

    def add_type(self, node_type: NodeType) -> NodeType:
        if node_type.name in self._types:
            other = self._types[node_type.name].module
            raise ValueError(f"two nodes are called {node_type.name!r}: in {other} and in {node_type.module}")
        self._types[node_type.name] = node_type
        return node_type

    def add_module(self, module: types.ModuleType) -> None:
        """Every `@node` function that `module` itself defines, in the order of the file."""
        for value in vars(module).values():
            if isinstance(getattr(value, "__node__", None), Declaration) and value.__module__ == module.__name__:
                self.add(value)

    def __getitem__(self, name: str) -> NodeType:
        return self._types[name]

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def __iter__(self) -> Iterator[NodeType]:
        return iter(self._types.values())

    def __len__(self) -> int:
        return len(self._types)


@dataclass(frozen=True)
class WholeHook:
    """A hook of a node class: it is handed the inputs that are there (links as None) and takes what it wants."""

    call: Callable[[Any, Mapping[str, Any]], Any]  # (ctx, values)
    names: tuple[str, ...] | None = None  # what it looks at; None: anything

    def __call__(self, ctx: Any, values: Mapping[str, Any]) -> Any:
        return self.call(ctx, values)


def call_hook(hook: Callable[..., Any], ctx: Any, values: Mapping[str, Any], declared: Iterable[str] = ()) -> Any:
    """Call a hook with what it names of `values` and `ctx`; all of them when it takes keyword arguments at large.
    Inputs that are `declared` and not there are None to it."""
    if isinstance(hook, WholeHook):
        return hook(ctx, values)
    values = {**dict.fromkeys(declared), **values}
    parameters = inspect.signature(hook).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        arguments = dict(values)
    else:
        arguments = {name: values[name] for name in parameters if name in values}
    if "ctx" in parameters:
        arguments["ctx"] = ctx
    return hook(**arguments)


def is_choices(kind: str | Sequence[str] | Choices) -> bool:
    return not isinstance(kind, str)


def _gathering(function: Callable[..., Any], names: Iterable[str]) -> Callable[..., Any]:
    """The function, called with inputs whose names can't be parameters: it gets them as one mapping, in that order."""
    mapping = list(inspect.signature(function).parameters)[-1]

    def call(ctx: Any, **given: Any) -> Any:
        gathered = {name: given.pop(name) for name in names}
        return function(ctx, **given, **{mapping: gathered})

    return call


def _inputs_of(function: Callable[..., Any], named: bool = True) -> Iterator[Input]:
    """`named`: every parameter is an input; else the last one gathers others."""
    parameters = list(inspect.signature(function).parameters.values())[1:]  # the first is ctx
    parameters = parameters if named else parameters[:-1]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise TypeError(f"{function.__qualname__}: *{parameter.name} is no input; name every input")
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = eval(annotation, {}, _Names(function))  # code of the module itself, as typing evaluates it
        declared = next((a for a in get_args(annotation) if isinstance(a, In)), None)
        if get_origin(annotation) is not Annotated or declared is None:
            raise TypeError(f"{function.__qualname__}: '{parameter.name}' needs Annotated[type, In(...)]")
        yield Input(parameter.name, declared, optional=parameter.default is not parameter.empty)


class _Absent(type):
    """Stands for a type imported under TYPE_CHECKING only: any attribute, index or union of it is itself."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls


class _AbsentType(metaclass=_Absent):
    pass


class _Names(dict[str, Any]):
    """What an annotation may name: the function's module, builtins, else `_AbsentType`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._globals = vars(sys.modules[function.__module__])
        closure = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
        self._closure = closure

    def __missing__(self, name: str) -> Any:
        for names in (self._closure, self._globals, vars(builtins)):
            if name in names:
                return names[name]
        return _AbsentType
