"""Tiny job kinds for these tests, pure Python, run in real worker processes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from engine.jobs.types import JobContext, JobKind, JobSpec, Priority
from engine.jobs.worker import WorkerHandle
from engine.workspace import replacing


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Add(Settings):
    a: int = 0
    b: int = 0


class Hold(Settings):
    seconds: float = 60.0
    how: str = "sleep"  # or "poll": with progress, "spin": pure Python


class Die(Settings):
    how: str = "abort"


class Work(Settings):
    """Counts to `steps`, keeping its count in `file`. The last step waits for the file `gate`, if one is named: so that
    a test decides when the work may end, however fast or slow the machine is."""

    steps: int = 100
    pause: float = 0.01
    file: str
    die_at: int = -1
    gate: str = ""


class Odd(Settings):
    what: str


def add(ctx: JobContext, settings: Add) -> dict[str, Any]:
    ctx.emit("adding", numbers=[settings.a, settings.b])
    return {"sum": settings.a + settings.b}


def hold(ctx: JobContext, settings: Hold) -> dict[str, Any]:
    ctx.emit("holding")
    end = time.monotonic() + settings.seconds
    if settings.how == "sleep":
        time.sleep(settings.seconds)
    while time.monotonic() < end:
        if settings.how == "poll":
            ctx.progress(0, 1, "polling")
            time.sleep(0.005)
    return {}


def die(ctx: JobContext, settings: Die) -> dict[str, Any]:
    ctx.emit("dying")
    if settings.how == "abort":
        os.abort()
    if settings.how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def work(ctx: JobContext, settings: Work) -> dict[str, Any]:
    """Writes a line per event into `file`.log: what ran, so that tests see what was lost and done twice."""
    path = Path(settings.file)
    log = path.with_suffix(".log").open("a", buffering=1)
    step = json.loads(path.read_text()) if path.exists() else 0

    def save() -> None:
        with replacing(path, "w") as file:
            file.write(json.dumps(step))
        log.write(f"saved {step}\n")

    log.write(f"started at {step} attempt {ctx.attempt}\n")
    while step < settings.steps:
        ctx.checkpoint(save)
        if step == settings.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.gate and step == settings.steps - 1 and not os.path.exists(settings.gate):
            time.sleep(settings.pause)
            continue
        step += 1
        log.write(f"step {step}\n")
        ctx.progress(step, settings.steps, phase="working", loss=1 / step)
        time.sleep(settings.pause)
    save()
    return {"steps": step}


def odd(ctx: JobContext, settings: Odd) -> dict[str, Any]:
    if settings.what == "unserialisable":
        return {"value": object()}
    if settings.what == "print":
        print("words on stdout", flush=True)
    if settings.what == "exit":
        raise SystemExit(3)
    if settings.what == "partial":
        error = ValueError("half done")
        error.result = {"pictures": 1}  # pyright: ignore[reportAttributeAccessIssue]
        raise error
    if settings.what == "submit":
        return {"id": ctx.submit(JobSpec("add", {"a": 20, "b": 22}))}
    if settings.what == "submit wrongly":
        return {"id": ctx.submit(JobSpec("add", {"aa": 20}))}
    if settings.what == "preview":
        from PIL import Image

        ctx.preview(Image.new("RGB", (8, 8), (255, 0, 0)), node="3")
    if settings.what == "where":
        return {"workspace": repr(ctx.workspace)}
    if settings.what == "keep":
        ctx.kept[Odd] = ctx.kept.get(Odd, 0) + 1
        return {"kept": ctx.kept[Odd]}
    return {}


def _kind(name: str, settings: type[BaseModel], priority: Priority, resumable: bool = False) -> JobKind:
    return JobKind(name, f"{__name__}:{name}", settings, priority, resumable)


def kinds() -> dict[str, JobKind]:
    listed = (
        _kind("add", Add, Priority.interactive),
        _kind("hold", Hold, Priority.interactive),
        _kind("die", Die, Priority.interactive),
        _kind("odd", Odd, Priority.interactive),
        _kind("work", Work, Priority.train, resumable=True),
    )
    return {kind.name: kind for kind in listed}


def setup(worker: WorkerHandle) -> None:
    worker.phase("importing nothing")

    def slow(payload: Any) -> str:
        time.sleep(payload)
        return "slow"

    def broken(_: Any) -> None:
        raise ValueError("a broken handler")

    worker.handlers["double"] = lambda payload: payload * 2
    worker.handlers["pid"] = lambda _: os.getpid()
    worker.handlers["slow"] = slow
    worker.handlers["broken"] = broken


def broken_setup(worker: WorkerHandle) -> None:
    worker.phase("importing what is not there")
    raise RuntimeError("no driver")
