"""What became of prompts: /history and /jobs, both read from the job store, so that a restart loses nothing."""

from __future__ import annotations

import contextlib
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import EaselError, InputError
from engine.jobs.errors import UnknownJob
from engine.jobs.types import Job, JobState
from studio.app import App
from studio.comfy.prompt import KIND, entry, number_of, users_of
from studio.comfy.requests import empty, json_object

ENDED = [state for state in JobState if state.ended]
_STATUS = {
    JobState.queued: "pending",
    JobState.paused: "pending",
    JobState.running: "in_progress",
    JobState.done: "completed",
    JobState.failed: "failed",
    JobState.interrupted: "failed",
    JobState.cancelled: "cancelled",
}
_BY_TIME, _BY_DURATION = "created_at", "execution_duration"
_WORKFLOW_ID = "$.extra_data.extra_pnginfo.workflow.id"
_SHOWN_MEDIA = ("images", "video", "audio", "3d", "gifs")


class UnknownFilter(InputError):
    en = "{name} can't be '{value}'. Known: {known}."
    zh = "{name} 不能是“{value}”。已知：{known}。"


def routes(app: App) -> list[BaseRoute]:
    async def history(request: Request) -> Response:
        if request.method == "GET":
            most = _number(request, "max_items", app.settings.limits.history)
            offset = _number(request, "offset", -1)
            return JSONResponse(await run_in_threadpool(_history, app, most, offset, users_of(request)))
        body = await json_object(request)
        await run_in_threadpool(_delete, app, body)
        return empty()

    def one_history(request: Request) -> Response:
        job = _prompt_job(app, request.path_params["prompt_id"])
        return JSONResponse({job.id: history_entry(job)} if job and _in_history(job) else {})

    def jobs(request: Request) -> Response:
        return JSONResponse(_jobs(app, request))

    def one_job(request: Request) -> Response:
        job = _prompt_job(app, request.path_params["job_id"])
        if job is None:
            return JSONResponse({"error": "Job not found"}, 404)
        return JSONResponse(_job_row(job, whole=True))

    def cancel_job(request: Request) -> Response:
        job = _prompt_job(app, request.path_params["job_id"])
        if job is None:
            return JSONResponse({"error": "Job not found"}, 404)
        return JSONResponse({"cancelled": _cancelled(app, job.id)})

    async def cancel_jobs(request: Request) -> Response:
        body = await json_object(request)
        ids = body.get("job_ids")
        if not isinstance(ids, list) or not all(isinstance(job_id, str) for job_id in ids):
            return JSONResponse({"error": "job_ids must be a list of ids"}, 400)

        def cancel_all() -> list[str]:
            return [job_id for job_id in ids if _prompt_job(app, job_id) and _cancelled(app, job_id)]

        return JSONResponse({"cancelled": await run_in_threadpool(cancel_all)})

    return [
        Route("/history", history, methods=["GET", "POST"]),
        Route("/history/{prompt_id}", one_history),
        Route("/jobs", jobs),
        Route("/jobs/cancel", cancel_jobs, methods=["POST"]),
        Route("/jobs/{job_id}", one_job),
        Route("/jobs/{job_id}/cancel", cancel_job, methods=["POST"]),
    ]


def history_entry(job: Job) -> dict[str, Any]:
    result = job.result or {}
    told = {**result["status"], "messages": result.get("messages") or []} if result.get("status") else None
    return {
        "prompt": entry(job),
        "outputs": result.get("outputs") or {},
        "status": told or _status_without_worker(job),
        "meta": result.get("meta") or {},
    }


def prune(app: App) -> int:
    """Forget the oldest prompts beyond the limit. Their pictures stay. Returns how many went."""
    extra = app.jobs.list(states=ENDED, kinds=[KIND], limit=100_000, offset=app.settings.limits.history)
    for job in extra:
        app.jobs.delete(job.id)
    return len(extra)


def _status_without_worker(job: Job) -> dict[str, Any]:
    """Of a prompt whose worker could not tell how it ended."""
    good = job.state is JobState.done
    messages = []
    if job.error:
        messages = [["execution_error", {"prompt_id": job.id, "exception_message": job.error.get("en", "")}]]
    return {"status_str": "success" if good else "error", "completed": good, "messages": messages}


def _history(app: App, most: int, offset: int, users: list[str] | None) -> dict[str, Any]:
    """Oldest first. Without an offset the newest `most`; with one, `most` from there, counted from the oldest."""
    most = max(0, min(most, app.settings.limits.history))
    if offset < 0:
        rows = app.jobs.list(ENDED, [KIND], most, users=users)[::-1]
    else:
        rows = app.jobs.list(ENDED, [KIND], most, offset, newest_first=False, users=users)
    return {job.id: history_entry(job) for job in rows if _in_history(job)}


def _in_history(job: Job) -> bool:
    """Prompts that ran; not those taken out of the queue before."""
    return job.state.ended and (job.started is not None or job.state is not JobState.cancelled)


def _delete(app: App, body: dict[str, Any]) -> None:
    if body.get("clear"):
        wanted = [job.id for job in app.jobs.list(states=ENDED, kinds=[KIND], limit=100_000)]
    else:
        found = body.get("delete")
        wanted = [item for item in found if isinstance(item, str)] if isinstance(found, list) else []
    for job_id in wanted:
        job = _prompt_job(app, job_id)
        if job and job.state.ended:
            app.jobs.delete(job_id)


def _prompt_job(app: App, job_id: str) -> Job | None:
    try:
        job = app.jobs.get(job_id)
    except UnknownJob:
        return None
    return job if job.kind == KIND else None


def _cancelled(app: App, job_id: str) -> bool:
    with contextlib.suppress(EaselError):
        app.jobs.cancel(job_id)
        return True
    return False


def _jobs(app: App, request: Request) -> dict[str, Any]:
    """GET /jobs?status=&workflow_id=&user=&sort_by=&sort_order=&limit=&offset=. Raises UnknownFilter."""
    query = request.query_params
    wanted = {name for name in query.get("status", "").split(",") if name}
    _known("status", wanted, set(_STATUS.values()))
    _known("sort_by", {query.get("sort_by", _BY_TIME)}, {_BY_TIME, _BY_DURATION})
    _known("sort_order", {query.get("sort_order", "desc")}, {"asc", "desc"})
    states = [state for state, name in _STATUS.items() if not wanted or name in wanted]
    settings = {_WORKFLOW_ID: query["workflow_id"]} if query.get("workflow_id") else None
    limit = max(1, min(_number(request, "limit", 200), 1000))
    offset = max(0, _number(request, "offset", 0))
    descending = query.get("sort_order", "desc") == "desc"
    longest_first = descending if query.get("sort_by") == _BY_DURATION else None
    users = users_of(request)
    total = app.jobs.count(states, [KIND], settings, users)
    rows = app.jobs.list(
        states, [KIND], limit, offset, descending or longest_first is not None, settings=settings,
        longest_first=longest_first, users=users,
    )  # fmt: skip
    return {
        "jobs": [_job_row(job) for job in rows],
        "pagination": {"offset": offset, "limit": limit, "total": total, "has_more": offset + len(rows) < total},
    }


def _known(name: str, values: set[str], known: set[str]) -> None:
    if not values <= known:
        raise UnknownFilter(name=name, value=", ".join(sorted(values - known))[:80], known=", ".join(sorted(known)))


def _job_row(job: Job, whole: bool = False) -> dict[str, Any]:
    outputs = (job.result or {}).get("outputs") or {}
    shown = [
        {**item, "nodeId": node_id, "mediaType": media}
        for node_id, output in outputs.items()
        for media in _SHOWN_MEDIA
        for item in _rows_of(output, media)
        if isinstance(item, dict)
    ]
    information = (job.settings.get("extra_data") or {}).get("extra_pnginfo")
    workflow = information.get("workflow") if isinstance(information, dict) else None
    row: dict[str, Any] = {
        "id": job.id,
        "status": _STATUS[job.state],
        "priority": number_of(job),
        "create_time": int(job.created * 1000),
        "outputs_count": len(shown),
        "workflow_id": workflow.get("id") if isinstance(workflow, dict) else None,
    }
    if job.started:
        row["execution_start_time"] = int(job.started * 1000)
    if job.finished:
        row["execution_end_time"] = int(job.finished * 1000)
    if shown:
        row["preview_output"] = next((item for item in reversed(shown) if item.get("type") == "output"), shown[-1])
    if job.error:
        row["execution_error"] = {
            "exception_message": job.error.get("en", ""),
            "exception_type": job.error.get("code", ""),
            "traceback": str(job.error.get("traceback") or "").splitlines(keepends=True),
        }
    if whole:
        found = history_entry(job)
        row["outputs"] = outputs
        row["execution_status"] = found["status"]
        row["execution_meta"] = found["meta"]
        row["workflow"] = {"prompt": job.settings["prompt"], "extra_data": job.settings.get("extra_data", {})}
    return row


def _rows_of(output: Any, media: str) -> list[Any]:
    found = output.get(media) if isinstance(output, dict) else None
    return found if isinstance(found, list) else []


def _number(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name, "")
    return int(value) if value.removeprefix("-").isdecimal() and len(value) < 12 else default
