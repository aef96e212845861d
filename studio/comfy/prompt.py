"""Prompts come in: POST /prompt, the queue, interrupting and freeing."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from engine.errors import EaselError
from engine.graph.validation import request_error
from engine.jobs.errors import DuplicateJob, UnknownJob
from engine.jobs.types import Job, JobState
from studio.app import App
from studio.comfy.events import Sockets, queue_info
from studio.comfy.requests import NotJson, empty, json_body, json_object
from studio.refusal import PromptRefused

log = logging.getLogger(__name__)

KIND = "generate"
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")  # for nodes that ask for them; kept in no file, shown nowhere
MOST_IN_QUEUE = 10_000


def routes(app: App, sockets: Sockets, on_prompt: Callable[[Any], Awaitable[Any]]) -> list[BaseRoute]:
    """`on_prompt` is shown what was sent to POST /prompt and returns what is to be judged: handlers of packs."""

    async def prompt(request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(await run_in_threadpool(queue_info, app))
        try:
            body = await json_body(request, app.settings.limits.prompt_mb)
        except NotJson as error:
            status, answer = _refused(request_error("invalid_json", str(error)))
        else:
            user = getattr(request.state, "user", "")
            status, answer = await run_in_threadpool(take, app, await on_prompt(body), user, sockets.expect)
        return JSONResponse(answer, status)

    async def queue(request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(await run_in_threadpool(_queue, app, users_of(request)))
        body = await json_object(request)
        await run_in_threadpool(_delete_from_queue, app, body)
        return empty()

    async def interrupt(request: Request) -> Response:
        body = await json_object(request)
        await run_in_threadpool(_interrupt, app, body.get("prompt_id"))
        return empty()

    async def free(request: Request) -> Response:
        body = await json_object(request)
        wanted = {name: body.get(name) is True for name in ("unload_models", "free_memory")}
        with contextlib.suppress(EaselError, TimeoutError):
            await run_in_threadpool(app.supervisor.request, "free", wanted, 0.5)
        return empty()

    return [
        Route("/prompt", prompt, methods=["GET", "POST"]),
        Route("/queue", queue, methods=["GET", "POST"]),
        Route("/interrupt", interrupt, methods=["POST"]),
        Route("/free", free, methods=["POST"]),
    ]


def running(app: App) -> list[Job]:
    """Prompts that the worker has, whether at work or held at a checkpoint."""
    return [job for job in app.jobs.held() if job.kind == KIND]


def entry(job: Job) -> list[Any]:
    """[number, id, prompt, extra_data, outputs]: how the API writes a prompt in queue and history."""
    settings = job.settings
    return [number_of(job), job.id, settings["prompt"], settings.get("extra_data", {}), settings.get("outputs") or []]


def number_of(job: Job) -> int | float:
    return int(job.position) if job.position == int(job.position) else job.position


def take(
    app: App, body: Any, user: str, expect: Callable[[str, str], None] = lambda job_id, client_id: None
) -> tuple[int, dict[str, Any]]:
    """Judge and queue what a client sent to POST /prompt. Returns the HTTP status and the answer; `expect` is told the
    ids of the prompt and of its client."""
    if not isinstance(body, dict) or "prompt" not in body:
        return _refused(request_error("no_prompt", "No prompt provided", "No prompt provided"))
    wrong = _wrong_fields(body)
    if wrong:
        return _refused(wrong)
    if app.jobs.count(states=[JobState.queued], kinds=[KIND]) >= MOST_IN_QUEUE:
        return _refused(request_error("queue_full", "The queue is full"), 429)
    client_id = body.get("client_id") or ""
    sent = body.get("extra_data") or {}
    extra = {key: value for key, value in sent.items() if key not in SECRETS}
    secrets = {key: sent[key] for key in SECRETS if sent.get(key)}
    if client_id:
        extra["client_id"] = client_id
    prompt_id = body.get("prompt_id") or str(uuid.uuid4())
    try:
        with app.supervisor.entrusting(prompt_id, secrets):
            job, found = app.submit_prompt(
                body["prompt"],
                draft=body.get("draft") is True,
                targets=body.get("partial_execution_targets"),
                extra_data=extra,
                client_id=client_id,
                front=bool(body.get("front")),
                id=prompt_id,
                user=user,
            )
        expect(job.id, client_id)
    except PromptRefused as refused:
        return 400, refused.found.to_json()
    except DuplicateJob as error:
        return _refused(request_error("invalid_prompt_id", str(error)))
    number: int | float = number_of(job)
    if "number" in body:
        number = float(body["number"])
        _place(app, job, number)
    return 200, {"prompt_id": job.id, "number": number, "node_errors": found.node_errors}


def _wrong_fields(body: dict[str, Any]) -> dict[str, Any] | None:
    """What is wrong with the request beside its prompt."""
    prompt_id, targets = body.get("prompt_id"), body.get("partial_execution_targets")
    if prompt_id is not None and not _is_uuid(prompt_id):
        return request_error("invalid_prompt_id", "prompt_id must be a UUID in its canonical, lower-case form")
    if targets is not None and not (isinstance(targets, list) and all(isinstance(t, str) for t in targets)):
        return request_error("invalid_request", "partial_execution_targets must be a list of node ids")
    extra = body.get("extra_data") or {}
    if not isinstance(extra, dict) or not isinstance(_or_empty(extra.get("extra_pnginfo")), dict):
        return request_error("invalid_request", "extra_data and its extra_pnginfo must be objects")
    if not all(extra.get(name) is None or isinstance(extra[name], str) for name in SECRETS):
        return request_error("invalid_request", f"{' and '.join(SECRETS)} must be strings")
    client_id = body.get("client_id")
    if client_id is not None and (not isinstance(client_id, str) or len(client_id) > 200):
        return request_error("invalid_request", "client_id must be a string of at most 200 characters")
    number = body.get("number", 0)
    if isinstance(number, bool) or not isinstance(number, int | float) or not -(2**53) <= number <= 2**53:
        return request_error("invalid_request", "number must be a number, at most 2**53")
    return None


def _or_empty(value: Any) -> Any:
    return {} if value is None else value  # null is what some clients send for nothing


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _place(app: App, job: Job, number: float) -> None:
    """Before the first waiting prompt with a larger number."""
    for other in app.jobs.in_line(kinds=[KIND]):
        if other.id != job.id and other.priority == job.priority and other.position > number:
            with contextlib.suppress(EaselError):  # it started meanwhile
                app.jobs.move(job.id, before=other.id)
            return


def users_of(request: Request) -> list[str] | None:
    """Whose prompts are asked for: `?user=NAME`, or `?user=me` for those of whoever asks; everybody's without it."""
    name = request.query_params.get("user")
    return None if name is None else [getattr(request.state, "user", "") if name == "me" else name]


def _queue(app: App, users: list[str] | None) -> dict[str, Any]:
    return {
        "queue_running": [entry(job) for job in running(app) if users is None or job.user in users],
        "queue_pending": [entry(job) for job in app.jobs.in_line([KIND], MOST_IN_QUEUE, users)],
    }


def _delete_from_queue(app: App, body: dict[str, Any]) -> None:
    waiting = {job.id for job in app.jobs.in_line(kinds=[KIND], limit=MOST_IN_QUEUE)}
    wanted = waiting if body.get("clear") else waiting.intersection(_ids(body.get("delete")))
    for job_id in wanted:
        with contextlib.suppress(EaselError):
            app.jobs.cancel(job_id)


def _interrupt(app: App, prompt_id: Any) -> None:
    for job in running(app):
        if prompt_id in (None, "", job.id):
            with contextlib.suppress(UnknownJob, EaselError):
                app.jobs.cancel(job.id)


def _ids(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _refused(error: dict[str, Any], status: int = 400) -> tuple[int, dict[str, Any]]:
    return status, {"error": error, "node_errors": {}}
