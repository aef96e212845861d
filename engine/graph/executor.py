"""Runs a prompt: only what its outputs need, each node when what it needs is there, nothing twice.

ComfyUI's semantics: a topological dissolve whose edges may still grow (lazy inputs, expansion, async nodes), values
mapped as lists, blockers, results cached by signature. Every step is iterative and linear in nodes and links. It knows
no torch: what must surround node calls (`torch.no_grad`) is the caller's `guard`.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import math
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.errors import Cancelled, EaselError, describe
from engine.graph.cache import Cache, Entry, signature
from engine.graph.calls import Call, Values, blocker_in, call_of, mapped, merged, merged_ui, shown_inputs
from engine.graph.context import CallContext, RunContext
from engine.graph.errors import (
    DependencyCycle,
    DuplicateNode,
    MissingNode,
    MissingSlot,
    NodeFailed,
    NotLazy,
    UnknownNodeType,
)
from engine.graph.node import Blocker
from engine.graph.progress_state import ProgressBoard
from engine.graph.registry import NodeType, Registry, call_hook
from engine.graph.validation import is_link, unwrapped

Listener = Callable[[str, dict[str, Any]], None]
CHECK_INTERVAL = 0.02  # seconds between two looks at the interrupt flag at node boundaries


@dataclass
class Outcome:
    """How a run ended, in the shape of ComfyUI's history."""

    status: Literal["success", "error", "interrupted"] = "success"
    outputs: dict[str, Any] = field(default_factory=dict)  # what output nodes show, by node id
    meta: dict[str, Any] = field(default_factory=dict)
    messages: list[list[Any]] = field(default_factory=list)
    error: BaseException | None = None

    def to_json(self) -> dict[str, Any]:
        done = self.status == "success"
        status = {"status_str": "success" if done else "error", "completed": done}
        return {"outputs": self.outputs, "meta": self.meta, "status": status, "messages": self.messages}


class Executor:
    """Runs prompts one after another; results and bound nodes wait in `cache` and here for the next."""

    def __init__(
        self,
        registry: Registry,
        cache: Cache,
        guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.registry = registry
        self.cache = cache
        self.bound: dict[tuple[str, str], Callable[..., Any]] = {}  # (node id, type): what keeps state between prompts
        self._guard = guard

    def run(self, prompt: Mapping[str, Any], ctx: RunContext, outputs: Sequence[str], listener: Listener) -> Outcome:
        """Run the `outputs` of a validated prompt and what they need. Errors of nodes and interrupts are in the
        Outcome, not raised."""
        self.bound = {key: call for key, call in self.bound.items() if key[0] in prompt}
        execution = _Execution(self, prompt, ctx, listener)
        with self._guard():
            return execution.run(outputs)


@dataclass(slots=True, eq=False)
class _Node:
    id: str
    type: NodeType
    constants: dict[str, Any]
    links: dict[str, tuple[str, int]]  # input: (node id, slot)
    display: str
    parent: _Node | None = None
    signature: str = ""
    cacheable: bool = True
    entry: Entry | None = None
    order: int = -1  # place in the queue; -1: not queued
    waiting: int = 0  # edges into it that are not done
    users: dict[str, _Node] = field(default_factory=dict)  # who waits for it
    reads: list[_Node] = field(default_factory=list)  # nodes whose results it may still read
    readers: int = 0  # queued nodes that may still read its result
    feeds_output: bool = False
    expansion: list[Call] | None = None
    tasks: list[Any] | None = None  # results and asyncio tasks of an async node's calls
    values: Values | None = None  # its inputs while tasks run

    @property
    def urgent(self) -> bool:
        return self.type.declaration.output_node or self.type.is_async


class _Execution:
    def __init__(self, executor: Executor, prompt: Mapping[str, Any], ctx: RunContext, listener: Listener) -> None:
        self.registry = executor.registry
        self.cache = executor.cache
        self.bound = executor.bound
        self.prompt = prompt
        self.ctx = ctx
        self.listener = listener
        self.board = ProgressBoard(ctx.prompt_id, lambda data: listener("progress_state", data))
        self.outcome = Outcome()
        self.nodes: dict[str, _Node] = {}
        self.expanded: dict[str, tuple[dict[str, Any], _Node]] = {}  # node id: (as in a prompt, the node it is part of)
        self.ready: list[tuple[int, int, str]] = []  # heap of (rank, order, id)
        self.queued = 0  # nodes ever queued
        self.left = 0  # queued and not done
        self.executed: dict[str, None] = {}
        self.running: dict[asyncio.Future[Any], _Node] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.checked = 0.0

    # The run ---------------------------------------------------------------------------------------------------------

    def run(self, outputs: Sequence[str]) -> Outcome:
        self._message("execution_start")
        node: _Node | None = None
        try:
            self._sign(outputs)
            self._look_up()
            self._queue(outputs)
            while self.left:
                node = self._next()
                self._check_interrupt()
                self._step(node)
            self._finish("execution_success")
        except Cancelled as cancelled:
            self._end("interrupted", cancelled)
            about = {"node_id": node.id, "node_type": node.type.name} if node else {"node_id": None, "node_type": None}
            self._finish("execution_interrupted", **about, executed=list(self.executed))
        except Exception as error:  # the node boundary: whatever a node raises ends its prompt, not the worker
            self._fail(node, error)
        finally:
            self.board.close()
            self._close_loop()
        return self.outcome

    def _fail(self, node: _Node | None, error: Exception) -> None:
        if node:
            self.board.finish(node.id, "error")
        told = describe(error)
        failed = NodeFailed(
            node_id=node.id if node else "-",
            class_type=node.type.name if node else "-",
            reason=told["en"],
            reason_zh=told["zh"],
        )
        failed.__cause__ = error
        self._end("error", failed)
        self._finish(
            "execution_error",
            node_id=node.id if node else "",
            node_type=node.type.name if node else "",
            executed=list(self.executed),
            exception_message=error.text("en") if isinstance(error, EaselError) else str(error),
            exception_type=_full_name(type(error)),
            traceback=traceback.format_tb(error.__traceback__),
            current_inputs=shown_inputs(node.values if node else None),
            current_outputs=list(self.executed),
            easel=told,
        )

    def _end(self, status: Literal["error", "interrupted"], error: BaseException) -> None:
        self.outcome.status = status
        self.outcome.error = error

    def _finish(self, event: str, **data: Any) -> None:
        self.board.close()
        self._message(event, **data)

    def _message(self, event: str, **data: Any) -> None:
        """A message that the history keeps."""
        data = {**data, "prompt_id": self.ctx.prompt_id, "timestamp": int(time.time() * 1000)}
        self.outcome.messages.append([event, data])
        self.listener(event, data)

    def _check_interrupt(self) -> None:
        now = time.monotonic()
        if now - self.checked >= CHECK_INTERVAL:
            self.ctx.interrupt_check()
            self.checked = now

    # What there is ---------------------------------------------------------------------------------------------------

    def _node(self, node_id: str, user: str) -> _Node:
        if node_id in self.nodes:
            return self.nodes[node_id]
        written, parent = self.expanded.get(node_id) or (self.prompt.get(node_id), None)
        if written is None:
            raise MissingNode(user=user, node_id=node_id)
        if written.get("class_type") not in self.registry:
            raise UnknownNodeType(node_id=node_id, class_type=written.get("class_type"))
        node_type = self.registry[written["class_type"]]
        node = _Node(node_id, node_type, {}, {}, node_id, parent)
        if parent:
            node.display = written.get("override_display_id") or parent.display
        for name, value in (written.get("inputs") or {}).items():
            if name not in node_type.inputs:
                continue
            if is_link(value) and not node_type.inputs[name].declared.extra.get("rawLink"):
                node.links[name] = (value[0], int(value[1]))
            else:
                node.constants[name] = unwrapped(value)
        self.nodes[node_id] = node
        return node

    def _sign(self, roots: Sequence[str]) -> None:
        """Give these nodes and all they hang on their signatures, what is needed first."""
        stack = [self._node(root, user="the prompt") for root in roots]
        entered: dict[str, None] = {}
        while stack:
            node = stack[-1]
            if node.signature:
                stack.pop()
            elif node.id in entered:
                self._sign_one(node)
                stack.pop()
            else:
                entered[node.id] = None
                for source_id, _ in node.links.values():
                    source = self._node(source_id, user=node.id)
                    if source.signature:
                        continue
                    if source.id in entered:
                        self._check_cycle(source, stack, entered)
                    stack.append(source)

    @staticmethod
    def _check_cycle(source: _Node, stack: Sequence[_Node], entered: Mapping[str, None]) -> None:
        """`source` was entered and has no signature: it is an ancestor on the path (a cycle), never merely waiting."""
        path = [node.id for node in stack if node.id in entered]
        path = list(dict.fromkeys(path))
        raise DependencyCycle(path=" -> ".join([*path[path.index(source.id) :], source.id][-50:]))

    def _sign_one(self, node: _Node) -> None:
        declared = node.type.declaration
        links = {name: (self.nodes[source].signature, slot) for name, (source, slot) in node.links.items()}
        own_id = declared.not_idempotent or "UNIQUE_ID" in declared.hidden
        salt = ("draft" if self.ctx.draft else "") + (f"#{node.id}" if own_id else "")
        node.signature, node.cacheable = signature(node.type, node.constants, links, self._fingerprint(node), salt)
        if any(not self.nodes[source].cacheable for source, _ in node.links.values()):
            node.cacheable = False

    def _fingerprint(self, node: _Node) -> Any:
        hook = node.type.declaration.fingerprint
        if hook is None:
            return None
        values = {**dict.fromkeys(node.type.inputs), **node.constants}
        try:
            answer = call_hook(hook, self._context(node, 0), values)
            return self._wait_for(answer) if inspect.iscoroutine(answer) else answer
        except Exception:  # as in ComfyUI: what can't say whether it changed, changed
            return math.nan

    def _look_up(self) -> None:
        """Find in the cache what is there, and say so."""
        self.cache.begin([node.signature if node.cacheable else node.id for node in self.nodes.values()])
        for node in self.nodes.values():
            if node.cacheable:
                node.entry = self.cache.get(node.signature)
        cached = [node_id for node_id in self.prompt if node_id in self.nodes and self.nodes[node_id].entry]
        self._message("execution_cached", nodes=cached)
        for node_id in cached:
            node = self.nodes[node_id]
            if node.type.declaration.has_intermediate_output and not node.type.declaration.output_node:
                self._show(node)

    # The queue -------------------------------------------------------------------------------------------------------

    def _queue(self, roots: Sequence[str]) -> None:
        """Queue nodes and what they wait for. They must have signatures."""
        fresh: list[_Node] = []
        for root in roots:
            stack = [root]
            while stack:
                node = self.nodes[stack.pop()]
                if node.order >= 0:
                    continue
                node.order = self.queued
                self.queued += 1
                self.left += 1
                fresh.append(node)
                if node.entry is not None:
                    continue
                for name, (source, _) in node.links.items():
                    self._will_read(node, self.nodes[source])
                    if name not in node.type.lazy and self._edge(self.nodes[source], node):
                        stack.append(source)
        for node in fresh:
            self._offer(node)

    def _edge(self, source: _Node, user: _Node) -> bool:
        """Let `user` wait for `source` unless its result is there. True when it has to."""
        if source.entry is not None:
            return False
        if user.id not in source.users:
            source.users[user.id] = user
            user.waiting += 1
            source.feeds_output |= user.urgent
        return True

    def _offer(self, node: _Node) -> None:
        """Put a node that waits for nothing where `_next` finds it: outputs first, then what is near an output."""
        if node.waiting or node.order < 0:
            return
        if node.urgent:
            rank = 0
        elif node.feeds_output:
            rank = 1
        elif any(user.feeds_output for user in node.users.values()):
            rank = 2
        else:
            rank = 3
        heapq.heappush(self.ready, (rank, node.order, node.id))

    def _next(self) -> _Node:
        while True:
            self._pump()
            while self.ready:
                _, order, node_id = heapq.heappop(self.ready)
                node = self.nodes[node_id]
                if node.order == order and not node.waiting:
                    return node
            if not self.running:
                stuck = [node.id for node in self.nodes.values() if node.order >= 0 and node.waiting]
                raise DependencyCycle(path=", ".join(stuck[:50]))
            self._pump(until_done=True)

    @staticmethod
    def _will_read(node: _Node, source: _Node) -> None:
        node.reads.append(source)
        source.readers += 1

    def _done(self, node: _Node) -> None:
        self.left -= 1
        node.order = -1
        node.expansion = node.tasks = node.values = None
        users, node.users = node.users, {}
        for user in users.values():
            user.waiting -= 1
            self._offer(user)
        if not self.cache.holds_run:
            self._release(node)

    def _release(self, node: _Node) -> None:
        """Let go of results that nobody queued will read. Whoever comes to need one later runs it again."""
        reads, node.reads = node.reads, []
        for source in reads:
            source.readers -= 1
            if source.readers == 0 and source.order < 0:
                source.entry = None
        if node.readers == 0:
            node.entry = None

    # One node --------------------------------------------------------------------------------------------------------

    def _step(self, node: _Node) -> None:
        """Run a node, or as much of it as can be run now."""
        if node.expansion is not None:
            self._store(node, node.expansion)
            return
        if node.tasks is not None:
            self._complete(node, [t.result() if isinstance(t, asyncio.Future) else t for t in node.tasks])
            return
        if node.entry is None and node.cacheable:
            node.entry = self.cache.get(node.signature)  # an equal node of this prompt has run
        if node.entry is not None:
            self._show(node)
            self.board.finish(node.id)
            self._done(node)
            return
        self.board.start(self._about(node))
        self._tell("executing", node=node.id, display_node=node.display)
        node.values, missing = self._gather(node)
        if node.type.lazy and node.type.declaration.check_lazy and self._needs_more(node, missing):
            return
        results = [self._call(node, index, values) for index, values in enumerate(self._arguments(node))]
        if any(inspect.iscoroutine(result) for result in results):
            self._start_tasks(node, results)
        else:
            self._complete(node, results)

    def _gather(self, node: _Node) -> tuple[Values, set[str]]:
        """The inputs, every value as a list, and the names of lazy ones that were not computed (they are None)."""
        values: Values = {name: [value] for name, value in node.constants.items()}
        missing: set[str] = set()
        for name, (source_id, slot) in node.links.items():
            source = self.nodes[source_id]
            if source.entry is None:
                values[name] = [None]
                missing.add(name)
                continue
            outputs = source.entry.outputs
            if not 0 <= slot < len(outputs):
                raise MissingSlot(
                    user=node.id, slot=slot, node_id=source_id, class_type=source.type.name, count=len(outputs)
                )
            values[name] = outputs[slot]
        return values, missing

    @staticmethod
    def _arguments(node: _Node) -> Iterator[dict[str, Any]]:
        return mapped(node.values or {}, node.type.declaration.input_is_list)

    def _needs_more(self, node: _Node, missing: set[str]) -> bool:
        """Ask the node which lazy inputs it needs; True when it has to wait for some of them."""
        hook = node.type.declaration.check_lazy
        assert hook
        wanted: dict[str, None] = {}
        for index, values in enumerate(self._arguments(node)):
            if blocker_in(values, node.type.declaration.input_is_list):
                continue
            complete = {**dict.fromkeys(node.type.inputs), **values}
            names = call_hook(hook, self._context(node, index), complete)
            names = self._wait_for(names) if inspect.iscoroutine(names) else names
            wanted.update(dict.fromkeys(names or ()))
        for name in wanted:
            if name not in node.links and name not in node.constants:
                raise NotLazy(class_type=node.type.name, name=name)
        sources = [node.links[name][0] for name in wanted if name in missing]
        for source in sources:
            self._edge(self.nodes[source], node)
        self._queue([source for source in sources if self.nodes[source].order < 0])
        return bool(sources)

    def _call(self, node: _Node, index: int, values: dict[str, Any]) -> Any:
        blocker = blocker_in(values, node.type.declaration.input_is_list)
        if blocker is not None:
            return self._blocked(node, blocker)
        call = node.type.call
        if node.type.bind is not None:
            key = (node.id, node.type.name)
            call = self.bound.get(key) or self.bound.setdefault(key, node.type.bind())
        return call(self._context(node, index), **values)

    def _context(self, node: _Node, index: int) -> CallContext:
        def report(step: int, total: int) -> None:
            self.board.update(node.id, step, total)
            self._tell("progress", value=step, max=total, node=node.id)

        return CallContext(self.ctx, self._about(node), index, report)

    def _blocked(self, node: _Node, blocker: Blocker) -> Blocker:
        """Skip a call. The message of a blocker is told once, by the first node that it stops."""
        if blocker.message is None:
            return blocker
        self._message(
            "execution_error",
            node_id=node.id,
            node_type=node.type.name,
            executed=list(self.executed),
            exception_message=f"Execution Blocked: {blocker.message}",
            exception_type="ExecutionBlocked",
            traceback=[],
            current_inputs={},
            current_outputs=[],
        )
        return Blocker()

    def _complete(self, node: _Node, results: Sequence[Any]) -> None:
        """All calls are back: show what there is to show, then expand or store."""
        calls = [call_of(node.type, result) for result in results]
        ui = merged_ui(calls)
        if ui:
            self._show(node, Entry([], ui))
        if any(call.expand for call in calls):
            self._expand(node, calls)
        else:
            self._store(node, calls)

    def _store(self, node: _Node, calls: list[Call]) -> None:
        node.entry = Entry(merged(node.type, calls, lambda link: self._result_of(node, link)), merged_ui(calls))
        if node.cacheable:
            owner = node.parent and (node.parent.signature if node.parent.cacheable else node.parent.id)
            self.cache.put(node.signature, node.entry, owner)
        self.executed[node.id] = None
        self.board.finish(node.id)
        self._done(node)

    def _result_of(self, node: _Node, link: Sequence[Any]) -> list[Any]:
        source, slot = self._node(link[0], user=node.id), int(link[1])
        outputs = source.entry.outputs if source.entry else []
        if not 0 <= slot < len(outputs):
            raise MissingSlot(
                user=node.id, slot=slot, node_id=source.id, class_type=source.type.name, count=len(outputs)
            )
        return outputs[slot]

    def _expand(self, node: _Node, calls: list[Call]) -> None:
        """Queue the nodes that the calls ask for; this one waits for them and is completed from their results."""
        new: list[str] = []
        for call in calls:
            for node_id, written in (call.expand or {}).items():
                if node_id in self.expanded or node_id in self.prompt:
                    raise DuplicateNode(parent=node.id, node_id=node_id)
                self.expanded[node_id] = (dict(written), node)
                new.append(node_id)
        outputs = [n for n in new if self._node(n, user=node.id).type.declaration.output_node]
        results = [value[0] for call in calls if call.expand is not None for value in call.result if is_link(value)]
        self._sign([*outputs, *results])
        for node_id in new:
            found = self.nodes.get(node_id)
            if found and found.cacheable and found.signature:
                found.entry = self.cache.get(found.signature)
        node.expansion = calls
        for node_id in dict.fromkeys([*outputs, *results]):
            self._edge(self.nodes[node_id], node)
        for node_id in results:
            self._will_read(node, self.nodes[node_id])
        self._queue([n for n in dict.fromkeys([*outputs, *results]) if n in outputs or self.nodes[n].entry is None])
        self._offer(node)

    # Async nodes -----------------------------------------------------------------------------------------------------

    def _start_tasks(self, node: _Node, results: list[Any]) -> None:
        loop = self._loop()
        node.tasks = [loop.create_task(one) if inspect.iscoroutine(one) else one for one in results]
        self._pump()
        pending = [task for task in node.tasks if isinstance(task, asyncio.Future) and not task.done()]
        for task in pending:
            self.running[task] = node
            node.waiting += 1
        if not pending:
            self._offer(node)

    def _pump(self, until_done: bool = False) -> None:
        """Let tasks go on; with `until_done` until one of them is done."""
        if self.loop is None:
            return
        if until_done and self.running:
            waiting = asyncio.wait(self.running, timeout=CHECK_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
            self.loop.run_until_complete(waiting)
            self.ctx.interrupt_check()
        else:
            self.loop.run_until_complete(asyncio.sleep(0))
        for task in [task for task in self.running if task.done()]:
            node = self.running.pop(task)
            node.waiting -= 1
            self._offer(node)

    def _wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop().run_until_complete(coroutine)

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
        return self.loop

    def _close_loop(self) -> None:
        if self.loop is None:
            return
        for task in self.running:
            task.cancel()
        if self.running:
            self.loop.run_until_complete(asyncio.gather(*self.running, return_exceptions=True))
        self.loop.close()

    # What is told ----------------------------------------------------------------------------------------------------

    def _tell(self, event: str, **data: Any) -> None:
        self.listener(event, {**data, "prompt_id": self.ctx.prompt_id})

    def _show(self, node: _Node, entry: Entry | None = None) -> None:
        entry = entry or node.entry
        if entry is None or not entry.ui:
            return
        self.outcome.outputs[node.id] = entry.ui
        about = self._about(node)
        self.outcome.meta[node.id] = {
            "node_id": node.id,
            "display_node": node.display,
            "parent_node": about["parent_node_id"],
            "real_node_id": about["real_node_id"],
        }
        self._tell("executed", node=node.id, display_node=node.display, output=entry.ui)

    def _about(self, node: _Node) -> dict[str, Any]:
        """The ids by which a message may name a node: itself, whose part it is, and what to show it at."""
        real = node
        while real.parent:
            real = real.parent
        return {
            "prompt_id": self.ctx.prompt_id,
            "node_id": node.id,
            "display_node_id": node.display,
            "parent_node_id": node.parent.id if node.parent else None,
            "real_node_id": real.id,
        }


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
