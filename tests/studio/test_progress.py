"""progress_state: every node for clients of ComfyUI's, the changes alone for those that ask for them."""

from __future__ import annotations

import json
from typing import Any

from studio.comfy.progress import INTERVAL, ProgressState


def state(value: float, kind: str = "running") -> dict[str, Any]:
    return {"value": value, "max": 1.0, "state": kind}


def test_a_full_message_holds_every_node_that_has_started() -> None:
    progress = ProgressState('id "x"')
    progress.change({"1": state(0.0)})
    progress.full()
    progress.change({"2": state(0.5)})
    progress.change({"1": state(1.0, "finished")})
    assert json.loads(progress.full()) == {
        "type": "progress_state",
        "data": {"prompt_id": 'id "x"', "nodes": {"1": state(1.0, "finished"), "2": state(0.5)}},
    }


def test_changes_hold_what_was_not_sent_yet() -> None:
    progress = ProgressState("p")
    progress.change({"1": state(0.0)})
    progress.fresh.clear()
    progress.change({"2": state(0.5)})
    told = json.loads(progress.changes())
    assert told["data"] == {"prompt_id": "p", "nodes": {"2": state(0.5)}, "changes_only": True}


def test_full_messages_become_rarer_with_the_nodes_so_that_bytes_stay_linear() -> None:
    small, large = ProgressState("p"), ProgressState("p")
    small.change({"1": state(0.0)})
    large.change({str(number): state(0.0) for number in range(10_000)})
    assert small.pace == INTERVAL
    assert large.pace == 0.4
