"""One stream of server-sent events a page: all jobs at first, then every change, preview and event as it comes.

The job store's event log is the truth, so that a second browser, the command line and another process show up too;
what the worker tells live (previews, steps) comes on top and is not kept.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from engine.graph.context import WARNING
from engine.jobs.errors import UnknownJob
from engine.jobs.types import Job
from studio import api
from studio.app import App

TICK = 0.25  # seconds between two looks at the store
SHOWN = 200  # ended jobs that the page knows of
_NOT_SHOWN = ("executing", "progress", "progress_state", "execution_cached")
HEARTBEAT = 15.0  # a comment line this often keeps proxies from closing a quiet stream


def job_json(job: Job) -> dict[str, Any]:
    """A job as the page wants it: without the graph, which may be megabytes."""
    row = api.job_json(job)
    return {**row, "settings": {k: v for k, v in row["settings"].items() if k not in ("prompt", "extra_data")}}


def known_jobs(app: App) -> list[Job]:
    """All that have not ended, and the newest that have."""
    active = app.jobs.list(states=["queued", "running", "paused"], limit=1000)
    return [*active, *app.jobs.list(states=["done", "failed", "cancelled", "interrupted"], limit=SHOWN)]


def routes(app: App) -> list[BaseRoute]:
    async def stream(request: Request) -> Response:
        return StreamingResponse(_messages(app, request), media_type="text/event-stream")

    return [Route("/stream", stream)]


async def _messages(app: App, request: Request) -> AsyncIterator[str]:
    live: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=256)
    loop = asyncio.get_running_loop()

    def hear(job_id: str, event: str, data: Any) -> None:
        if event in _NOT_SHOWN:  # thousands for a large graph, and waking the loop is what costs
            return
        loop.call_soon_threadsafe(_offer, live, {"id": job_id, "event": event, "data": data})

    unsubscribe = app.supervisor.subscribe(hear)
    try:
        seen = await run_in_threadpool(app.jobs.last_seq)
        jobs = await run_in_threadpool(known_jobs, app)
        shown = {job.id: job_json(job) for job in jobs}
        yield _line({"type": "all", "jobs": list(shown.values()), "worker": worker_json(app)})
        worker, quiet = worker_json(app), 0.0
        while not await request.is_disconnected():
            messages = await _live(live)
            running = {m["id"] for m in messages} | {i for i, job in shown.items() if job.get("state") == "running"}
            changed, seen = await run_in_threadpool(_changes, app, seen, running)
            for row in changed:
                if shown.get(row["id"]) != row:
                    shown[row["id"]] = row
                    yield _line({"type": "gone", "id": row["id"]} if row.get("gone") else {"type": "job", "job": row})
            for message in messages:
                if (line := _live_line(message)) is not None:
                    yield line
            if (now := worker_json(app)) != worker:
                worker = now
                yield _line({"type": "worker", "worker": worker})
            quiet = 0.0 if messages or changed else quiet + TICK
            if quiet >= HEARTBEAT:
                quiet = 0.0
                yield ": still here\n\n"
    finally:
        unsubscribe()


def worker_json(app: App) -> dict[str, Any]:
    """The worker's state; while it is not ready also for how many seconds its phase lasts, and why it failed."""
    told: dict[str, Any] = {"state": app.supervisor.state, "phase": app.supervisor.phase}
    if told["state"] != "ready":
        told |= {"seconds": round(time.monotonic() - app.supervisor.phase_since), "error": app.supervisor.error}
    return told


def _changes(app: App, seen: int, running: set[str]) -> tuple[list[dict[str, Any]], int]:
    """Rows of the jobs that the log or the worker named, and the new end of the log."""
    events = app.jobs.events_since(seen)
    rows = []
    for job_id in {event.job_id for event in events} | running:
        try:
            rows.append(job_json(app.jobs.get(job_id)))
        except UnknownJob:
            rows.append({"id": job_id, "gone": True})
    return rows, events[-1].seq if events else seen


async def _live(queue: asyncio.Queue[dict[str, Any]]) -> list[dict[str, Any]]:
    """What came in the last tick; of several previews of a job only the newest."""
    messages: list[dict[str, Any]] = []
    with suppress(TimeoutError):
        messages.append(await asyncio.wait_for(queue.get(), TICK))
        await asyncio.sleep(0.05)
    while not queue.empty():
        messages.append(queue.get_nowait())
    newest = {m["id"]: m for m in messages if m["event"] == "preview"}
    return [m for m in messages if m["event"] != "preview" or newest[m["id"]] is m]


def _live_line(message: dict[str, Any]) -> str | None:
    if message["event"] == "preview":
        jpeg = base64.b64encode(message["data"]["image"]).decode()
        return _line({"type": "preview", "id": message["id"], "jpeg": jpeg})
    if message["event"] in ("executed", WARNING):
        return _line({"type": "event", **message})
    return None


def _offer(queue: asyncio.Queue[dict[str, Any]], message: dict[str, Any]) -> None:
    """A page that does not read loses live messages, not its place: the store has what matters."""
    with suppress(asyncio.QueueFull):
        queue.put_nowait(message)


def _line(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, default=str)}\n\n"
