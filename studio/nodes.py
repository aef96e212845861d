"""The node catalogue as the server has it: read from the cache that a worker with this very code has left, and, where
the owner has turned them on, the nodes of packs as the worker tells them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.errors import EaselError
from engine.graph.catalogue import Catalogue
from engine.graph.replacement import OWN, Replacement
from engine.graph.validation import CustomCheck
from engine.jobs.errors import WorkerNotReady
from engine.workspace import Workspace

if TYPE_CHECKING:
    from engine.jobs.supervisor import Supervisor

CUSTOM_CHECK_SECONDS = 0.12  # POST /prompt answers within 200 ms also while a node holds the worker
CHOICES_SECONDS = 0.5  # to wait for what packs offer to choose from now
MOST_WAITING = 8  # requests that wait for a worker that starts; each holds one of the server's 40 threads


class CatalogueNotReady(WorkerNotReady):
    en = (
        "The list of nodes is not known yet: the worker is {state}. A first start is like this: try again. "
        "If it stays so, Easel was updated while it ran: start it again."
    )
    zh = (
        "尚未获得节点列表：工作进程状态为 {state}。首次启动时会这样，请稍后重试。"
        "若一直如此，说明程序在运行期间被更新过：请重新启动。"
    )


class PacksNotLoaded(CatalogueNotReady):
    en = (
        "Which nodes there are is known when the node packs are loaded, and the worker is not done yet "
        "({phase}, {seconds} s). If that does not end, add .disabled to the name of that pack's folder and start the "
        "studio again."
    )
    zh = (
        "节点包加载完成后才能获得节点列表，工作进程尚未完成（{phase}，{seconds} 秒）。"
        "如果一直不结束，请在该节点包的文件夹名后加上 .disabled，然后重新启动。"
    )


class NodeList:
    """Which nodes there are, without importing one."""

    def __init__(self, workspace: Workspace, supervisor: Supervisor, custom: bool = False) -> None:
        self._workspace = workspace
        self._supervisor = supervisor
        self._lock = threading.Lock()
        self._own: Catalogue | None = None
        self._all: Catalogue | None = None
        self._custom = custom
        self._told: dict[str, Any] = {}  # the worker's last word on packs
        self._seats = threading.BoundedSemaphore(MOST_WAITING)
        self._asked: float | None = None  # when somebody first had to wait for packs

    def catalogue(self, timeout: float = 60.0) -> Catalogue:
        """At once but for the first start after the code has changed, and with packs for the first time: then it waits
        for the worker, so long after the first who asked. Raises CatalogueNotReady then, and at once where many wait
        already."""
        if self._all is not None and (self._told or not self._custom):
            return self._all
        if not self._seats.acquire(blocking=False):
            raise self._not_ready()
        try:
            with self._lock:
                if self._all is None:
                    self._own = Catalogue.load(self._workspace.cache) or self._from_worker(timeout)
                    self._all = self._own
                if self._custom and not self._told:
                    self._wait_for_packs(timeout)
                return self._all
        finally:
            self._seats.release()

    def refresh(self) -> Catalogue:
        """The same, with what packs offer to choose from at this moment where the worker answers soon."""
        found = self.catalogue()
        if self._custom:
            with self._lock:
                self._ask_for_packs(CHOICES_SECONDS)
                found = self._all or found
        return found

    @property
    def custom(self) -> bool:
        """Whether node code of others is turned on."""
        return self._custom

    def packs(self) -> list[dict[str, Any]]:
        """The packs of custom_nodes, as the worker has loaded them; none while it has not."""
        return self._heard().get("packs", [])

    def known_packs(self) -> list[dict[str, Any]] | None:
        """The same as far as the worker has told already; None when it has not."""
        return self._told.get("packs")

    @property
    def replacements(self) -> list[Replacement]:
        """What stands for node types that are no more."""
        return [*OWN, *map(Replacement.from_json, self._heard().get("replacements", ()))]

    @property
    def served(self) -> dict[str, Any] | None:
        """How what packs answer over HTTP is reached (engine.custom.serving.Served), as far as the worker has told."""
        return self._told.get("served")

    def ask(self, checks: Sequence[CustomCheck]) -> Sequence[Mapping[str, Any]]:
        """Nodes' own checks, by the worker's control thread. A worker that is away checks them when it runs them."""
        try:
            return self._supervisor.request(
                "validate_inputs", {"checks": [asdict(check) for check in checks]}, timeout=CUSTOM_CHECK_SECONDS
            )["answers"]
        except (EaselError, TimeoutError):
            return [{} for _ in checks]

    def _heard(self) -> dict[str, Any]:
        if self._custom and not self._told:
            with suppress(EaselError):
                self.catalogue()
        return self._told

    def _wait_for_packs(self, timeout: float) -> None:
        known, now = self._supervisor, time.monotonic()
        self._asked = self._asked or now
        if not known.wait_ready(max(0.0, self._asked + timeout - now)) and known.state in ("starting", "restarting"):
            raise self._not_ready()
        self._ask_for_packs(timeout)

    def _not_ready(self) -> CatalogueNotReady:
        known = self._supervisor
        if not self._custom:
            return CatalogueNotReady(state=known.state)
        return PacksNotLoaded(phase=known.phase, seconds=round(time.monotonic() - known.phase_since))

    def _ask_for_packs(self, timeout: float) -> None:
        with suppress(EaselError, TimeoutError):
            known = {"known": self._told.get("digest", "")}
            told = self._supervisor.request("custom_nodes", known, timeout)
            if "entries" in told:
                self._told = told
                assert self._own
                self._all = self._own.with_more(Catalogue.from_json(told["entries"]))

    def _from_worker(self, timeout: float) -> Catalogue:
        self._supervisor.wait_ready(timeout)
        found = Catalogue.load(self._workspace.cache)
        if found is None:
            raise self._not_ready()
        return found
