"""What the import surface stands on: one host per worker, set before the first pack is imported.

Packs reach the studio through names of modules, so here, and only here, is state of a module.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import GraphError

if TYPE_CHECKING:
    from engine.graph.context import CallContext
    from engine.graph.registry import Registry
    from engine.graph.replacement import Replacement
    from engine.models.manager import ModelManager
    from engine.workspace import Workspace


class NoHost(GraphError):
    en = "Node code of others can't run here: no studio has opened it. Call engine.custom.packs.load_packs first."
    zh = "此处无法运行第三方节点代码：尚未由程序启用。请先调用 engine.custom.packs.load_packs。"


class NodeExited(GraphError):
    en = "The node called sys.exit({code!r}). Node code must raise an error instead."
    zh = "节点调用了 sys.exit({code!r})。节点代码应抛出错误。"


class Emit(Protocol):
    """Sends a message to websocket clients: to the one with the id `sid`, to all when it is None."""

    def __call__(self, event: str, data: Any, sid: str | None) -> None: ...


@dataclass
class Host:
    workspace: Workspace
    models: ModelManager | None
    registry: Registry
    emit: Emit = lambda event, data, sid: None
    classes: dict[str, type] = field(default_factory=dict)  # node classes of packs by class_type
    replacements: list[Replacement] = field(default_factory=list)  # of node types that are no more
    current: ContextVar[CallContext | None] = field(default_factory=lambda: ContextVar("easel_call", default=None))
    latest: CallContext | None = None  # of the call that was entered last: for threads that a node has started
    lock: threading.Lock = field(default_factory=threading.Lock)


_host: Host | None = None


def open_host(opened: Host) -> None:
    global _host
    _host = opened


def host() -> Host:
    if _host is None:
        raise NoHost()
    return _host


def context() -> CallContext | None:
    """The call of a node that runs now; None outside of one."""
    here = host()
    return here.current.get() or here.latest


def within(ctx: CallContext, call: Callable[[], Any]) -> Any:
    """`call()` with `ctx` as the context that the surface finds."""
    here = host()
    token, before = here.current.set(ctx), here.latest
    here.latest = ctx
    try:
        return call()
    except SystemExit as error:
        raise NodeExited(code=error.code) from error
    finally:
        here.current.reset(token)
        here.latest = before
