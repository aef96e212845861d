"""The list of nodes while the worker is not ready: nobody waits for ever, and few wait at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from engine.graph.catalogue import Catalogue, Entry
from engine.workspace import Workspace
from studio.nodes import MOST_WAITING, NodeList, PacksNotLoaded

OWN = Catalogue({"Show": Entry({"input": {}, "input_order": {}, "output": [], "output_name": []})})


class Loading:
    """A worker that a pack holds while it is loaded, until `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = threading.Semaphore(0)
        self.phase, self.phase_since = "loading node packs: hangs", time.monotonic() - 90

    @property
    def state(self) -> str:
        return "ready" if self.go.is_set() else "starting"

    def wait_ready(self, timeout: float) -> bool:
        self.asked.release()
        return self.go.wait(timeout)

    def request(self, name: str, payload: Any, timeout: float) -> dict[str, Any]:
        return {"digest": "1", "packs": [], "entries": Catalogue({}).to_json(), "replacements": [], "served": None}


def nodes_of(tmp_path: Path, worker: Loading) -> NodeList:
    workspace = Workspace(tmp_path)
    workspace.cache.mkdir()
    OWN.save(workspace.cache)
    return NodeList(workspace, cast(Any, worker), custom=True)


def test_a_pack_that_hangs_is_named_and_after_the_first_wait_nobody_waits(tmp_path: Path) -> None:
    found = nodes_of(tmp_path, worker := Loading())
    with pytest.raises(PacksNotLoaded, match=r"loading node packs: hangs, 9\d s.*\.disabled"):
        found.catalogue(timeout=0.0)
    begin = time.monotonic()
    for _ in range(20):
        with pytest.raises(PacksNotLoaded):
            found.catalogue(timeout=0.001)
    assert time.monotonic() - begin < 10
    worker.go.set()
    assert list(found.catalogue()) == ["Show"] and found.packs() == []


def test_few_wait_at_once_so_that_the_server_has_threads_for_others(tmp_path: Path) -> None:
    found = nodes_of(tmp_path, worker := Loading())
    waiting = [threading.Thread(target=found.catalogue) for _ in range(MOST_WAITING)]
    for thread in waiting:
        thread.start()
    while found._seats._value:  # until all of them sit; to try a seat would be to take it from one of them
        time.sleep(0.001)
    with pytest.raises(PacksNotLoaded):
        found.catalogue()
    worker.go.set()
    for thread in waiting:
        thread.join(60)
    assert list(found.catalogue()) == ["Show"]
