"""Which node runs next: a topological dissolve whose edges may still grow.

ComfyUI's order: output and async nodes first, then nodes one step before an output, then two steps, then the rest, each
in the order they were queued. Linear in nodes and edges but for the heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from engine.graph.plan import Node, Plan


class RunOrder:
    """The queue of a run. With `release`, results go as soon as no queued node may still read them."""

    def __init__(self, plan: Plan, release: bool) -> None:
        self.left = 0  # queued and not done
        self._plan = plan
        self._release = release
        self._queued = 0  # ever
        self._ready: list[tuple[int, int, str]] = []  # heap of (rank, order, id); entries may be out of date

    def queue(self, roots: Sequence[str]) -> None:
        """Queue signed nodes and what they wait for; lazy inputs are not waited for."""
        fresh: list[Node] = []
        for root in roots:
            stack = [root]
            while stack:
                node = self._plan[stack.pop()]
                if node.order >= 0:
                    continue
                node.order = self._queued
                self._queued += 1
                self.left += 1
                fresh.append(node)
                if node.entry is None:
                    stack.extend(self._needs(node))
        for node in fresh:
            self.offer(node)

    def wait_for(self, user: Node, source: Node) -> bool:
        """Let `user` wait for `source` unless its result is there. True when it has to."""
        if source.entry is not None:
            return False
        if user.id not in source.users:
            source.users[user.id] = user
            user.waiting += 1
            source.feeds_output |= user.urgent
        return True

    def will_read(self, user: Node, source: Node) -> None:
        """Hold the result of `source` until `user` is done."""
        user.reads.append(source)
        source.readers += 1

    def offer(self, node: Node) -> None:
        """A queued node may have become ready."""
        if not node.waiting and node.order >= 0:
            heapq.heappush(self._ready, (_rank(node), node.order, node.id))

    def next(self) -> Node | None:
        """A node that waits for nothing; None when there is none now."""
        while self._ready:
            _, order, node_id = heapq.heappop(self._ready)
            node = self._plan[node_id]
            if node.order == order and not node.waiting:
                return node
        return None

    def done(self, node: Node) -> None:
        """It has its results. Whoever waited for it may go."""
        self.left -= 1
        node.order = -1
        node.expansion = node.tasks = node.values = None
        users, node.users = node.users, {}
        for user in users.values():
            user.waiting -= 1
            self.offer(user)
        if self._release:
            self._let_go(node)

    def stuck(self) -> list[str]:
        """Queued nodes that wait."""
        return [node.id for node in self._plan.nodes.values() if node.order >= 0 and node.waiting]

    def _needs(self, node: Node) -> list[str]:
        needed = []
        for name, (source_id, _) in node.links.items():
            source = self._plan[source_id]
            self.will_read(node, source)
            if name not in node.lazy and self.wait_for(node, source):
                needed.append(source_id)
        return needed

    @staticmethod
    def _let_go(node: Node) -> None:
        """Results that nobody queued will read. Whoever comes to need one later runs its node again."""
        reads, node.reads = node.reads, []
        for source in reads:
            source.readers -= 1
            if source.readers == 0 and source.order < 0:
                source.entry = None
        if node.readers == 0:
            node.entry = None


def _rank(node: Node) -> int:
    if node.urgent:
        return 0
    if node.feeds_output:
        return 1
    return 2 if any(user.feeds_output for user in node.users.values()) else 3
