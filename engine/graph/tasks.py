"""Async nodes beside the others: an event loop that is turned between nodes, made when the first one needs it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

from engine.graph.plan import Node

TURN = 0.02  # seconds to wait at most for a task before looking at other things


class Tasks:
    """Asyncio tasks of nodes. A node with unfinished tasks waits (`node.waiting`) for each of them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: dict[asyncio.Future[Any], Node] = {}

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, node: Node, results: Sequence[Any]) -> None:
        """`results` of a node's calls, some of them coroutines, become `node.tasks`."""
        loop = self._opened()
        node.tasks = [loop.create_task(one) if inspect.iscoroutine(one) else one for one in results]
        loop.run_until_complete(asyncio.sleep(0))
        for task in node.tasks:
            if isinstance(task, asyncio.Future) and not task.done():
                self._running[task] = node
                node.waiting += 1

    def turn(self, wait: bool = False) -> Iterator[Node]:
        """Let tasks go on, with `wait` for up to `TURN` seconds. Gives the node of each task that is done."""
        if self._loop is None:
            return
        if wait and self._running:
            first = asyncio.wait(self._running, timeout=TURN, return_when=asyncio.FIRST_COMPLETED)
            self._loop.run_until_complete(first)
        else:
            self._loop.run_until_complete(asyncio.sleep(0))
        for task in [task for task in self._running if task.done()]:
            node = self._running.pop(task)
            node.waiting -= 1
            yield node

    def result(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run one coroutine to its end now."""
        return self._opened().run_until_complete(coroutine)

    def close(self) -> None:
        if self._loop is None:
            return
        for task in self._running:
            task.cancel()
        if self._running:
            self._loop.run_until_complete(asyncio.gather(*self._running, return_exceptions=True))
        self._loop.close()

    def _opened(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop


def settled(tasks: Sequence[Any]) -> list[Any]:
    """What tasks gave, raising what one raised; other values as they are."""
    return [task.result() if isinstance(task, asyncio.Future) else task for task in tasks]
