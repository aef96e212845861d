"""`comfy_execution.utils`: which call runs now."""

from __future__ import annotations

from typing import NamedTuple

from engine.custom.host import context


class ExecutionContext(NamedTuple):
    prompt_id: str
    node_id: str
    list_index: int | None


def get_executing_context() -> ExecutionContext | None:
    call = context()
    return ExecutionContext(call.job_id, call.node_id, call.index) if call else None
