"""The studio's own small API under /studio: status and jobs of every kind. The command line speaks it."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import InputError
from engine.jobs.types import Job, JobState
from engine.settings import checked
from studio.app import App
from studio.comfy.requests import json_object
from studio.versions import installed_version

ACTIONS = ("cancel", "pause", "resume", "retry", "delete", "move")


class UnknownAction(InputError):
    en = "A job can't be asked to '{action}'. Known: {known}."
    zh = "任务不支持操作“{action}”。已知：{known}。"


class NotAnId(InputError):
    en = "'before' must be the id of a job, or null for the end of the line; it is {value}."
    zh = "“before”必须是任务编号，或用 null 表示队尾；收到的是 {value}。"


def routes(app: App) -> list[BaseRoute]:
    def status(request: Request) -> Response:
        return JSONResponse(studio_status(app))

    async def jobs(request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(await run_in_threadpool(_list, app, request))
        body = await json_object(request, app.settings.limits.prompt_mb)
        user = getattr(request.state, "user", "")
        job = await run_in_threadpool(_submit, app, body, user)
        return JSONResponse(job_json(job), 201)

    def one_job(request: Request) -> Response:
        return JSONResponse(job_json(app.jobs.get(request.path_params["job_id"])))

    async def act(request: Request) -> Response:
        body = await json_object(request)
        job_id, action = request.path_params["job_id"], request.path_params["action"]
        job = await run_in_threadpool(_act, app, job_id, action, body)
        return JSONResponse(job_json(job) if job else {})

    def events(request: Request) -> Response:
        since = request.query_params.get("since", "0")
        rows = app.jobs.events_since(int(since) if since.isdecimal() and len(since) < 18 else 0)
        return JSONResponse([dataclasses.asdict(row) for row in rows])

    async def caches(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(app.supervisor.request, "caches", {}, 10.0))

    return [
        Route("/studio/status", status),
        Route("/studio/caches", caches),
        Route("/studio/jobs", jobs, methods=["GET", "POST"]),
        Route("/studio/jobs/{job_id}", one_job),
        Route("/studio/jobs/{job_id}/{action}", act, methods=["POST"]),
        Route("/studio/events", events),
    ]


def studio_status(app: App) -> dict[str, Any]:
    active = [JobState.queued, JobState.running, JobState.paused]
    return {
        "pid": os.getpid(),
        "version": installed_version("easel-studio"),
        "workspace": str(app.workspace.root),
        "worker": str(app.supervisor.state),
        "phase": app.supervisor.phase,
        "jobs": {str(state): app.jobs.count(states=[state]) for state in active},
        "seq": app.jobs.last_seq(),
    }


def job_json(job: Job) -> dict[str, Any]:
    row = dataclasses.asdict(job)
    return {**row, "state": str(job.state), "priority": int(job.priority)}


def _list(app: App, request: Request) -> list[dict[str, Any]]:
    states = [s for s in request.query_params.get("states", "").split(",") if s]
    limit = request.query_params.get("limit", "100")
    rows = app.jobs.list(
        states=states or None, limit=min(int(limit), 1000) if limit.isdecimal() and len(limit) < 10 else 100
    )
    return [job_json(job) for job in rows]


def _submit(app: App, body: dict[str, Any], user: str) -> Job:
    sent, kind = body.get("settings"), str(body.get("kind", ""))
    settings = sent if isinstance(sent, dict) else {}
    title = str(body.get("title", ""))[:200]
    if kind != "generate" or kind not in app.kinds:
        return app.submit(kind, settings, title=title, user=user)
    wanted = checked(app.kinds[kind].settings, settings, kind).model_dump(mode="json")
    about = {name: wanted[name] for name in ("draft", "extra_data", "client_id")}
    return app.submit_prompt(wanted["prompt"], targets=wanted["outputs"] or None, title=title, user=user, **about)[0]


def _act(app: App, job_id: str, action: str, body: dict[str, Any]) -> Job | None:
    if action not in ACTIONS:
        raise UnknownAction(action=action[:40], known=", ".join(ACTIONS))
    if action == "move":
        before = body.get("before")
        if before is not None and not isinstance(before, str):
            raise NotAnId(value=str(before)[:40])
        return app.jobs.move(job_id, before=before)
    if action == "delete":
        app.jobs.delete(job_id)
        return None
    return getattr(app.jobs, action)(job_id)
