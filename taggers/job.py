"""The "tag" job: every picture of a dataset through one tagger, in batches, into the store.

A run that was stopped goes on where it was: what the same model with the same settings has read is skipped. The model
is leased for each batch, so that a picture somebody waits for can have the room between two.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.dataset.decoding import PictureGone
from engine.dataset.export import export_sidecars, set_rules
from engine.dataset.library import Dataset, Library
from engine.dataset.pictures import scan
from engine.dataset.records import Picture, Policy, Source
from engine.dataset.view import TAGGER, View
from engine.errors import PictureError
from engine.jobs.types import JobContext
from engine.models.manager import ModelRef
from taggers.catalogue import InstalledTagger, tagger
from taggers.contract import Contract, contract
from taggers.onnx_tagger import Session, model_spec, refuse_broken, scores, version_of, working_bytes
from taggers.pixels import load
from taggers.rules import reading
from taggers.settings import TagSettings


@dataclass
class _Run:
    """What a run has done so far; becomes the job's result."""

    tagged: int = 0
    skipped: int = 0
    provider: str = ""
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        return self.tagged / max(1e-6, time.monotonic() - self.started)


def run(ctx: JobContext, settings: TagSettings) -> dict[str, Any]:
    """Runs in the worker. Returns counts, problems by file, the device it really ran on and the source's id."""
    with Library(ctx.workspace).open(settings.dataset) as dataset:
        report = scan(dataset, ctx.progress)
        installed = tagger(ctx.workspace, settings.tagger)
        ctx.progress(0, 0, installed.name, phase="load")
        model = contract(installed)
        source = _source(dataset, installed, settings)
        done = _Run(problems=dict(report.problems))
        pictures = _chosen(dataset, settings, source, done)
        _tag(ctx, settings, dataset, installed, model, source.id, pictures, done)
        if settings.captions is not None:
            set_rules(dataset, settings.captions)
        result = {
            "dataset": dataset.name,
            "tagger": installed.name,
            "source": source.id,
            "tagged": done.tagged,
            "skipped": done.skipped,
            "problems": done.problems,
            "provider": done.provider,
            "pictures_per_second": round(done.rate, 2),
        }
        if settings.export:
            sidecars = export_sidecars(dataset, View(dataset.store), suffix=settings.export, progress=ctx.progress)
            result["exported"] = sidecars.done + sidecars.unchanged
            done.problems.update(sidecars.problems)
        return result


def _source(dataset: Dataset, installed: InstalledTagger, settings: TagSettings) -> Source:
    """Who is going to write. Thresholds are no part of its identity: they move without running again."""
    told = Policy(
        {**installed.thresholds(), **settings.thresholds},
        mcut=installed.mcut() if settings.mcut is None else settings.mcut,
    )
    source = dataset.store.source(
        f"{TAGGER}{installed.name}", version_of(installed.file), {"floor": settings.floor}, policy=told
    )
    wanted = replace(
        source.policy,
        thresholds={**source.policy.thresholds, **settings.thresholds},
        mcut=source.policy.mcut if settings.mcut is None else settings.mcut,
    )
    dataset.store.set_policy(source.id, wanted, f"Thresholds of {installed.name}")
    if settings.keep:
        installed.keep(wanted.thresholds, wanted.mcut)
    return source


def _chosen(dataset: Dataset, settings: TagSettings, source: Source, done: _Run) -> list[Picture]:
    pictures = dataset.store.pictures()
    if settings.pictures is not None:
        wanted = set(settings.pictures)
        pictures = [picture for picture in pictures if picture.id in wanted]
    if settings.overwrite:
        return pictures
    known = dataset.store.read_by(source.id)
    left = [picture for picture in pictures if picture.id not in known]
    done.skipped = len(pictures) - len(left)
    return left


def _tag(
    ctx: JobContext,
    settings: TagSettings,
    dataset: Dataset,
    installed: InstalledTagger,
    model: Contract,
    source: int,
    pictures: list[Picture],
    done: _Run,
) -> None:
    threads = settings.threads or min(8, max(2, os.cpu_count() or 2))
    seen = 0
    if not pictures:
        ctx.progress(0, 0, installed.name, phase="tag")
        return
    ref = ctx.models.add(model_spec(installed))
    done.started = time.monotonic()
    with _Decoder(dataset, model, threads, ahead=max(2 * settings.batch_size, threads)) as decoder:
        for part in decoder.batches(pictures, settings.batch_size):
            good = [(picture, value) for picture, value in part if isinstance(value, np.ndarray)]
            for picture, value in part:
                if isinstance(value, PictureError):
                    _list_problem(dataset, picture, value, done)
            if good:
                found, done.provider = _read(ctx, ref, model, [value for _, value in good])
                refuse_broken(model, found, [picture.name for picture, _ in good])
                dataset.store.add_readings(
                    source,
                    {p.id: reading(row, model.words, settings.floor) for (p, _), row in zip(good, found, strict=True)},
                )
            done.tagged += len(good)
            seen += len(part)
            text = f"{installed.name} · {done.provider}"
            ctx.progress(seen, len(pictures), text, phase="tag", pictures_per_second=round(done.rate, 2))
            ctx.checkpoint()


def _read(ctx: JobContext, ref: ModelRef, model: Contract, values: list[np.ndarray]) -> tuple[np.ndarray, str]:
    with ctx.models.lease(ref, working=working_bytes(model, len(values))) as leased:
        session: Session = leased[ref]
        return scores(session, model, values), session.provider


def _list_problem(dataset: Dataset, picture: Picture, error: PictureError, done: _Run) -> None:
    done.problems[picture.path] = error.to_json()
    if not isinstance(error, PictureGone):
        dataset.store.set_problem(picture.path, error.to_json())


class _Decoder:
    """Pictures decoded by threads ahead of the model, in order, never more than `ahead` at once."""

    def __init__(self, dataset: Dataset, model: Contract, threads: int, ahead: int) -> None:
        self._dataset, self._model, self._ahead = dataset, model, ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __enter__(self) -> _Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batches(
        self, pictures: Sequence[Picture], size: int
    ) -> Iterator[list[tuple[Picture, np.ndarray | PictureError]]]:
        waiting: deque[Future[np.ndarray | PictureError]] = deque()
        sent = 0
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            while sent < len(pictures) and len(waiting) < self._ahead + size:
                waiting.append(self._pool.submit(self._decode, pictures[sent]))
                sent += 1
            yield [(picture, waiting.popleft().result()) for picture in part]

    def _decode(self, picture: Picture) -> np.ndarray | PictureError:
        error: PictureError = PictureGone(name=picture.path)
        for path in picture.paths:  # any of the files with this content will do
            try:
                return load(self._dataset.path(path), self._model.spec.pixels, self._model.size)
            except PictureError as problem:
                error = problem
        return error
