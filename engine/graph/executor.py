"""Runs a prompt: only what its outputs need, each node when what it needs is there, nothing twice.

ComfyUI's semantics: lazy inputs, expansion, async nodes, values mapped as lists, blockers, results cached by signature.
Every step is iterative and linear in nodes and links. It knows no torch: what must surround node calls
(`torch.no_grad`) is the caller's `guard`.
"""

from __future__ import annotations

import inspect
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.errors import Cancelled, EaselError, describe
from engine.graph.cache import Cache, Entry
from engine.graph.calls import Call, Values, blocker_in, call_of, mapped, merged, merged_ui, shown_inputs
from engine.graph.context import WARNING, CallContext, RunContext
from engine.graph.dynprompt import DynPrompt
from engine.graph.errors import DependencyCycle, MissingSlot, NodeFailed, NotLazy, OutOfMemory, is_out_of_memory
from engine.graph.links import is_link
from engine.graph.loops import Folded, folded
from engine.graph.node import Blocker
from engine.graph.order import RunOrder
from engine.graph.plan import Node, Plan
from engine.graph.progress_state import ProgressBoard
from engine.graph.registry import Bound, Registry, call_hook
from engine.graph.shapes import check_shapes
from engine.graph.tasks import Tasks, settled
from engine.jobs.secrets import masked

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
        self, registry: Registry, cache: Cache, guard: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self.registry = registry
        self.cache = cache
        self.bound: dict[tuple[str, str], Bound] = {}  # (node id, type): what keeps state between prompts
        self._guard = guard

    def run(self, prompt: Mapping[str, Any], ctx: RunContext, outputs: Sequence[str], listener: Listener) -> Outcome:
        """Run the `outputs` of a validated prompt and what they need. Errors of nodes and interrupts are in the
        Outcome, not raised."""
        self.bound = {key: bound for key, bound in self.bound.items() if key[0].partition(".")[0] in prompt}
        loopless = folded(prompt, outputs, self.registry)
        execution = _Execution(self, loopless, ctx, listener)
        with self._guard():
            return execution.run(loopless.outputs)


class _Execution:
    def __init__(self, executor: Executor, loopless: Folded, ctx: RunContext, listener: Listener) -> None:
        self.cache = executor.cache
        self.bound = executor.bound
        self.prompt = prompt = loopless.prompt
        self.later = loopless.outside  # what loops will ask for, if they have a use for it
        self.ctx = ctx
        self.listener = listener
        self.plan = Plan(prompt, executor.registry, self._fingerprint, salt="draft" if ctx.draft else "")
        self.dynprompt = DynPrompt(self.plan)
        self.order = RunOrder(self.plan, release=not executor.cache.holds_run)
        self.tasks = Tasks()
        self.board = ProgressBoard(ctx.prompt_id, lambda data: listener("progress_state", data))
        self.outcome = Outcome()
        self.executed: dict[str, None] = {}
        self.checked = 0.0

    def run(self, outputs: Sequence[str]) -> Outcome:
        self._message("execution_start")
        node: Node | None = None
        try:
            self.plan.sign([*outputs, *self.later])
            self._look_up()
            self.order.queue(outputs)
            while self.order.left:
                node = self._next()
                self._check_interrupt()
                self._step(node)
            self._end("execution_success")
        except Cancelled as cancelled:
            self.outcome.status, self.outcome.error = "interrupted", cancelled
            about = {"node_id": node.id, "node_type": node.type.name} if node else {"node_id": None, "node_type": None}
            self._end("execution_interrupted", **about, executed=list(self.executed))
        except Exception as error:  # the node boundary: whatever a node raises ends its prompt, not the worker
            self._fail(node, error)
        finally:
            self.board.close()
            self.tasks.close()
        return self.outcome

    def _look_up(self) -> None:
        """Find in the cache what is there, and say so."""
        self.cache.begin([node.key for node in self.plan.nodes.values()])
        for node in self.plan.nodes.values():
            if node.cacheable:
                node.entry = self.cache.get(node.signature)
        cached = [self.plan[n] for n in self.prompt if n in self.plan.nodes and self.plan[n].entry]
        self._message("execution_cached", nodes=[node.id for node in cached])
        for node in cached:
            if node.type.declaration.has_intermediate_output and not node.type.declaration.output_node:
                self._show(node, node.entry)

    def _next(self) -> Node:
        waited = False
        while True:
            for node in self.tasks.turn(wait=waited):
                self.order.offer(node)
            found = self.order.next()
            if found is not None:
                return found
            if not self.tasks:
                raise DependencyCycle(path=", ".join(self.order.stuck()[:50]))
            self.ctx.interrupt_check()
            waited = True

    def _check_interrupt(self) -> None:
        now = time.monotonic()
        if now - self.checked >= CHECK_INTERVAL:
            self.ctx.interrupt_check()
            self.checked = now

    def _step(self, node: Node) -> None:
        """Run a node, or as much of it as can be run now."""
        if node.expansion is not None:
            self._store(node, node.expansion)
            return
        if node.tasks is not None:
            self._complete(node, settled(node.tasks))
            return
        if node.entry is None and node.cacheable:
            node.entry = self.cache.get(node.signature)  # an equal node of this prompt has run
        if node.entry is not None:
            self._show(node, node.entry)
            self.board.finish(node.id)
            self.order.done(node)
            return
        self.board.start({**node.about(), "prompt_id": self.ctx.prompt_id})
        self._tell("executing", node=node.id, display_node=node.display)
        node.values, missing = self._gather(node)
        if node.lazy and self._needs_more(node, missing):
            return
        results = [self._call(node, index, arguments) for index, arguments in enumerate(_arguments(node))]
        if any(inspect.iscoroutine(result) for result in results):
            self.tasks.start(node, results)
            self.order.offer(node)
        else:
            self._complete(node, results)

    def _gather(self, node: Node) -> tuple[Values, set[str]]:
        """The inputs, every value as a list, and the names of lazy ones that were not computed (they are None)."""
        values: Values = {name: [value] for name, value in node.constants.items()}
        missing: set[str] = set()
        for name, (source_id, slot) in node.links.items():
            if self.plan[source_id].entry is None:
                values[name] = [None]
                missing.add(name)
            else:
                values[name] = self._output(node, source_id, slot)
        return values, missing

    def _output(self, user: Node, source_id: str, slot: int) -> list[Any]:
        source = self.plan.node(source_id, user=user.id)
        outputs = source.entry.outputs if source.entry else []
        if not 0 <= slot < len(outputs):
            kind = source.type.name
            raise MissingSlot(user=user.id, slot=slot, node_id=source_id, class_type=kind, count=len(outputs))
        return outputs[slot]

    def _needs_more(self, node: Node, missing: set[str]) -> bool:
        """Ask the node which lazy inputs it needs; True when it has to wait for some of them."""
        hook = self._bound_node(node).check_lazy if node.type.bind else node.type.declaration.check_lazy
        if hook is None:
            return False
        wanted: dict[str, None] = {}
        for index, arguments in enumerate(_arguments(node)):
            if blocker_in(arguments, node.type.declaration.input_is_list):
                continue
            arguments = node.type.nested(arguments, node.type.declaration.input_is_list)
            names = call_hook(hook, self._context(node, index), arguments, node.type.inputs)
            names = self.tasks.result(names) if inspect.iscoroutine(names) else names
            wanted.update(dict.fromkeys(names or ()))
        for name in wanted:
            if name not in node.links and name not in node.constants:
                raise NotLazy(class_type=node.type.name, name=name)
        sources = [self.plan[node.links[name][0]] for name in wanted if name in missing]
        for source in sources:
            self.order.wait_for(node, source)
        self.order.queue([source.id for source in sources])
        return bool(sources)

    def _call(self, node: Node, index: int, arguments: Mapping[str, Any]) -> Any:
        blocker = blocker_in(arguments, node.type.declaration.input_is_list)
        if blocker is not None:
            return self._blocked(node, blocker)
        call = self._bound_node(node) if node.type.bind else node.type.call
        arguments = node.type.nested(arguments, node.type.declaration.input_is_list)
        if node.type.shaped:
            check_shapes(node.type.shaped, arguments)
        return call(self._context(node, index), **arguments)

    def _bound_node(self, node: Node) -> Bound:
        key = (node.id, node.type.name)
        if key not in self.bound:
            assert node.type.bind
            self.bound[key] = node.type.bind()
        return self.bound[key]

    def _blocked(self, node: Node, blocker: Blocker) -> Blocker:
        """Skip a call. The message of a blocker is told once, by the first node that it stops."""
        if blocker.message is None:
            return blocker
        self._message(
            "execution_error",
            **self._place(node),
            exception_message=f"Execution Blocked: {blocker.message}",
            exception_type="ExecutionBlocked",
            traceback=[],
            current_inputs={},
            current_outputs=[],
        )
        return Blocker()

    def _complete(self, node: Node, results: Sequence[Any]) -> None:
        """All calls are back: show what there is to show, then expand or store."""
        calls = [call_of(node.type, result) for result in results]
        self._show(node, Entry([], merged_ui(calls)))
        if any(call.expand for call in calls):
            self._expand(node, calls)
        else:
            self._store(node, calls)

    def _store(self, node: Node, calls: Sequence[Call]) -> None:
        outputs = merged(node.type, calls, lambda link: self._output(node, link[0], int(link[1])))
        node.entry = Entry(outputs, merged_ui(calls), node.type.name)
        if node.cacheable:
            self.cache.put(node.signature, node.entry, owner=node.parent.key if node.parent else None)
        self.executed[node.id] = None
        self.board.finish(node.id)
        self.order.done(node)

    def _expand(self, node: Node, calls: list[Call]) -> None:
        """Queue the nodes that the calls ask for; this one waits for them and is completed from their results."""
        new = [node_id for call in calls for node_id in self.plan.expand(node, call.expand or {})]
        outputs = [n for n in new if self.plan.node(n, user=node.id).type.declaration.output_node]
        results = [value[0] for call in calls if call.expand is not None for value in call.result if is_link(value)]
        needed = list(dict.fromkeys([*outputs, *results]))
        self.plan.sign(needed)
        for made in (self.plan.nodes.get(node_id) for node_id in new):
            if made and made.signature and made.cacheable:
                made.entry = self.cache.get(made.signature)
        node.expansion = calls
        for node_id in needed:
            self.order.wait_for(node, self.plan[node_id])
        for node_id in results:
            self.order.will_read(node, self.plan[node_id])
        shown = set(outputs)
        self.order.queue([n for n in needed if n in shown or self.plan[n].entry is None])
        self.order.offer(node)

    def _fingerprint(self, node: Node) -> Any:
        """What a node says of its own changes; links are None to it."""
        hook = node.type.declaration.fingerprint
        if hook is None:
            return None
        try:
            values = node.type.nested({**dict.fromkeys(node.links), **node.constants})
            answer = call_hook(hook, self._context(node, 0), values, node.type.inputs)
            return self.tasks.result(answer) if inspect.iscoroutine(answer) else answer
        except Exception:  # as in ComfyUI: what can't say whether it changed, changed
            return math.nan

    def _context(self, node: Node, index: int) -> CallContext:
        def report(step: int, total: int) -> None:
            self.board.update(node.id, step, total)
            self._tell("progress", value=step, max=total, node=node.id)

        def warn(en: str, zh: str) -> None:
            self._message(WARNING, node_id=node.id, node_type=node.type.name, en=en, zh=zh)

        about = {**node.about(), "prompt_id": self.ctx.prompt_id}
        return CallContext(self.ctx, about, index, report, self.dynprompt, warn)

    def _show(self, node: Node, entry: Entry | None) -> None:
        if entry is None or not entry.ui:
            return
        about = node.about()
        self.outcome.outputs[node.id] = entry.ui
        self.outcome.meta[node.id] = {
            "node_id": node.id,
            "display_node": node.display,
            "parent_node": about["parent_node_id"],
            "real_node_id": about["real_node_id"],
        }
        self._tell("executed", node=node.id, display_node=node.display, output=entry.ui)

    def _fail(self, node: Node | None, error: Exception) -> None:
        advice = OutOfMemory(reason=f"{str(error) or type(error).__name__}.") if is_out_of_memory(error) else None
        secrets = self.ctx.secrets.values()
        told: dict[str, Any] = masked(describe(advice or error), secrets)
        place = self._place(node)
        if node:
            self.board.finish(node.id, "error")
        failed = NodeFailed(
            node_id=place["node_id"] or "-",
            class_type=place["node_type"] or "-",
            reason=told["en"],
            reason_zh=told["zh"],
        )
        failed.__cause__ = error
        self.outcome.status, self.outcome.error = "error", failed
        self._end(
            "execution_error",
            **place,
            exception_message=told["en"] if isinstance(advice or error, EaselError) else masked(str(error), secrets),
            exception_type=_full_name(type(error)),
            traceback=masked(traceback.format_tb(error.__traceback__), secrets),
            current_inputs=masked(shown_inputs(node.values if node else None), secrets),
            current_outputs=list(self.executed),
            easel=told,
        )

    def _place(self, node: Node | None) -> dict[str, Any]:
        """Where something happened, and what had run by then."""
        about = {"node_id": node.id, "node_type": node.type.name} if node else {"node_id": "", "node_type": ""}
        return {**about, "executed": list(self.executed)}

    def _end(self, event: str, **data: Any) -> None:
        self.board.close()
        self._message(event, **data)

    def _message(self, event: str, **data: Any) -> None:
        """A message that the history keeps."""
        data = {**data, "prompt_id": self.ctx.prompt_id, "timestamp": int(time.time() * 1000)}
        self.outcome.messages.append([event, data])
        self.listener(event, data)

    def _tell(self, event: str, **data: Any) -> None:
        self.listener(event, {**data, "prompt_id": self.ctx.prompt_id})


def _arguments(node: Node) -> Iterator[dict[str, Any]]:
    return mapped(node.values or {}, node.type.declaration.input_is_list)


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
