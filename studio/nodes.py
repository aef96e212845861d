"""The node catalogue as the server has it: read from the cache that a worker with this very code has left."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.errors import EaselError
from engine.graph.catalogue import Catalogue
from engine.graph.validation import CustomCheck
from engine.jobs.errors import WorkerNotReady
from engine.workspace import Workspace

if TYPE_CHECKING:
    from engine.jobs.supervisor import Supervisor

CUSTOM_CHECK_SECONDS = 0.12  # POST /prompt answers within 200 ms also while a node holds the worker


class CatalogueNotReady(WorkerNotReady):
    en = "The list of nodes is not known yet: the worker is {state}. Only a first start is like this. Try again."
    zh = "尚未获得节点列表：工作进程状态为 {state}。仅首次启动时会这样，请稍后重试。"


class NodeList:
    """Which nodes there are, without importing one."""

    def __init__(self, workspace: Workspace, supervisor: Supervisor) -> None:
        self._workspace = workspace
        self._supervisor = supervisor
        self._lock = threading.Lock()
        self._catalogue: Catalogue | None = None

    def catalogue(self, timeout: float = 60.0) -> Catalogue:
        """At once but for the first start after the code has changed: then it waits for the worker."""
        with self._lock:
            if self._catalogue is None:
                self._catalogue = Catalogue.load(self._workspace.cache) or self._from_worker(timeout)
            return self._catalogue

    def ask(self, checks: Sequence[CustomCheck]) -> Sequence[Mapping[str, Any]]:
        """Nodes' own checks, by the worker's control thread. A worker that is away checks them when it runs them."""
        try:
            return self._supervisor.request(
                "validate_inputs", {"checks": [asdict(check) for check in checks]}, timeout=CUSTOM_CHECK_SECONDS
            )["answers"]
        except (EaselError, TimeoutError):
            return [{} for _ in checks]

    def _from_worker(self, timeout: float) -> Catalogue:
        self._supervisor.wait_ready(timeout)
        found = Catalogue.load(self._workspace.cache)
        if found is None:
            raise CatalogueNotReady(state=self._supervisor.state)
        return found
