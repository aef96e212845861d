"""Where jobs of the command line run: in the studio that serves the workspace, else in one of our own."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from engine.errors import EaselError, GraphError, JobError
from engine.graph.catalogue import Catalogue, Entry
from engine.jobs.errors import RemoteError
from engine.workspace import Workspace
from studio import presence
from studio.api import job_json
from studio.app import App
from studio.bars import Bar
from studio.settings import StudioSettings

POLL_SECONDS = 0.2


class PromptRefused(GraphError):
    en = "The workflow can't run: {reason}"
    zh = "工作流无法运行：{reason}"


class StudioGone(JobError):
    en = "The studio at {url} does not answer any more ({reason}). The job goes on when it runs again: studio jobs."
    zh = "{url} 上的程序不再响应（{reason}）。程序再次运行后任务会继续：studio jobs。"


class Session(Protocol):
    def submit(self, kind: str, settings: dict[str, Any], title: str = "") -> str: ...
    def prompt(self, body: dict[str, Any]) -> str:
        """Queue a prompt. Raises PromptRefused with every reason."""
        ...

    def catalogue(self) -> Catalogue: ...
    def job(self, job_id: str) -> dict[str, Any]: ...


@contextmanager
def session(workspace: Workspace, settings: StudioSettings) -> Iterator[Session]:
    found = presence.find(workspace)
    if found:
        yield Remote(found)
        return
    from studio.kinds import job_kinds
    from studio.server import open_app

    app = open_app(workspace, settings, job_kinds())
    app.supervisor.start()
    try:
        yield Local(app)
    finally:
        app.supervisor.stop()
        app.jobs.close()


def follow(session: Session, job_id: str, bar: Bar) -> dict[str, Any]:
    """Show a job's progress until it has ended. Raises its error."""
    while True:
        job = session.job(job_id)
        if job["state"] in ("done", "failed", "cancelled") or (job["state"] == "interrupted" and job["finished"]):
            break
        if job["state"] == "running":
            bar.show(job["progress"])
        time.sleep(POLL_SECONDS)
    bar.close()
    if job["state"] != "done":
        raise remote_error(job["error"] or {"code": "Cancelled", "en": "It was cancelled.", "zh": "已取消。"})
    return job


def refusal(answer: Mapping[str, Any]) -> PromptRefused:
    """The reasons of a 400 answer of POST /prompt, one line each."""
    lines = [" ".join(filter(None, (answer["error"]["message"], answer["error"]["details"])))]
    for node_id, found in answer.get("node_errors", {}).items():
        lines += [f"  node {node_id} ({found['class_type']}): {e['message']}: {e['details']}" for e in found["errors"]]
    return PromptRefused(reason="\n".join(lines))


def remote_error(error: Mapping[str, Any]) -> EaselError:
    return RemoteError(code=error["code"], en=error["en"], zh=error["zh"])


class Remote:
    """Through the API of the running studio."""

    def __init__(self, found: presence.Presence) -> None:
        self._found = found

    def submit(self, kind: str, settings: dict[str, Any], title: str = "") -> str:
        return self._call("POST", "/studio/jobs", {"kind": kind, "settings": settings, "title": title})["id"]

    def prompt(self, body: dict[str, Any]) -> str:
        return self._call("POST", "/prompt", body)["prompt_id"]

    def catalogue(self) -> Catalogue:
        return Catalogue({name: Entry(info) for name, info in self._call("GET", "/object_info").items()})

    def job(self, job_id: str) -> dict[str, Any]:
        return self._call("GET", f"/studio/jobs/{job_id}")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            return presence.call(self._found, method, path, body)
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read() or b"{}")
            if "node_errors" in answer:
                raise refusal(answer) from None
            described = answer.get("error")
            if isinstance(described, dict) and "en" in described:
                raise remote_error(described) from None
            raise StudioGone(url=self._found.url, reason=error) from error
        except OSError as error:
            raise StudioGone(url=self._found.url, reason=error) from error


class Local:
    """In this process, with a worker of its own."""

    def __init__(self, app: App) -> None:
        self._app = app

    def submit(self, kind: str, settings: dict[str, Any], title: str = "") -> str:
        return self._app.submit(kind, settings, title=title, user="command line").id

    def prompt(self, body: dict[str, Any]) -> str:
        from studio.comfy.prompt import take

        status, answer = take(self._app, body, "command line")
        if status != 200:
            raise refusal(answer)
        return answer["prompt_id"]

    def catalogue(self) -> Catalogue:
        return self._app.catalogue

    def job(self, job_id: str) -> dict[str, Any]:
        if self._app.supervisor.state == "failed" and self._app.supervisor.error:
            raise remote_error(self._app.supervisor.error)
        return job_json(self._app.jobs.get(job_id))
