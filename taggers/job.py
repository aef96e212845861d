"""The "tag" job: every picture of a dataset through one tool or several, in batches, into the store.

A run that was stopped goes on where it was: what the same model with the same settings has read is skipped. Models are
leased for each batch, so that a picture somebody waits for can have the room between two. Taggers that follow each
other share one decoding; captioners come after them, one by one, and can be told what was read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.dataset.export import export_sidecars, set_rules
from engine.dataset.library import Dataset, Library
from engine.dataset.pictures import scan
from engine.dataset.records import Picture, Source
from engine.dataset.view import View
from engine.errors import EaselError, PictureError
from engine.jobs.types import JobContext
from taggers.catalogue import tagger
from taggers.far import FarTool, far_pass
from taggers.halving import read_within
from taggers.opening import open_reader
from taggers.passes import Decoder, Words, chosen, chunks, decoding_threads
from taggers.reader import Reader, UnfitPicture, Waits
from taggers.results import Results, known_to
from taggers.settings import Captioner, OnnxTool, TagSettings
from taggers.sources import list_problem, source_of
from taggers.tool import About

ENOUGH = 4  # so many pictures refused, and none read: it is no use to ask on
_MERGE = "merge"  # the key of a dataset's merge in its store


@dataclass
class _Tool:
    """One tool of a run and what it has done; becomes a part of the job's result."""

    settings: OnnxTool | Captioner
    reader: Reader
    source: Source
    results: Results
    known: set[int]
    tagged: int = 0
    skipped: int = 0
    refused: int = 0
    failure: EaselError | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        return self.tagged / max(1e-6, time.monotonic() - self.started)

    def to_json(self) -> dict[str, Any]:
        return {
            "tool": self.source.tool,
            "source": self.source.id,
            "tagged": self.tagged,
            "skipped": self.skipped,
            "cut": self.results.cut,
            "provider": self.reader.provider,
            "batch_size": self.reader.batch_size,
            "pictures_per_second": round(self.rate, 2),
        }


def run(ctx: JobContext, settings: TagSettings) -> dict[str, Any]:
    """Runs in the worker. Returns counts, problems by file, the device it really ran on and the source's id."""
    with Library(ctx.workspace).open(settings.dataset) as dataset:
        report = scan(dataset, ctx.progress)
        problems: dict[str, dict[str, Any]] = dict(report.problems)
        if settings.merge is not None:
            dataset.store.change_meta(_MERGE, settings.merge.model_dump(), f"Merge: {settings.merge.how}")
        ids = chosen(dataset, settings.pictures)
        done: list[_Tool | FarTool] = []
        for group in _groups(ctx, settings):
            if settings.ray:
                done += [far_pass(ctx, settings, dataset, tool, ids, problems) for tool in group]
                continue
            tools = [_opened(ctx, dataset, tool, settings) for tool in group]
            done += tools
            _pass(ctx, settings, dataset, tools, ids, problems)
        if settings.captions is not None:
            set_rules(dataset, settings.captions)
        parts = [tool.to_json() for tool in done]
        name = str(parts[0]["tool"]).partition(":")[2]
        result = {"dataset": dataset.name, "tagger": name, "problems": problems, **parts[0], "tools": parts}
        if settings.export:
            sidecars = export_sidecars(dataset, View(dataset.store), suffix=settings.export, progress=ctx.progress)
            result["exported"] = sidecars.done + sidecars.unchanged
            problems.update(sidecars.problems)
        return result


def _groups(ctx: JobContext, settings: TagSettings) -> Iterator[list[OnnxTool | Captioner]]:
    """Taggers that follow each other go together, when all their files fit; everything else goes alone."""
    together: list[OnnxTool | Captioner] = []
    for tool in settings.all_tools():
        if isinstance(tool, OnnxTool):
            sizes = [tagger(ctx.workspace, one.tagger).nbytes for one in (*together, tool) if isinstance(one, OnnxTool)]
            if together and 2 * sum(sizes) > ctx.models.budget():
                yield together
                together = []
            together.append(tool)
            continue
        if together:
            yield together
            together = []
        yield [tool]
    if together:
        yield together


def _opened(ctx: JobContext, dataset: Dataset, tool: OnnxTool | Captioner, settings: TagSettings) -> _Tool:
    name = tool.tagger if isinstance(tool, OnnxTool) else tool.model
    ctx.progress(0, 0, name, phase="load")
    reader = open_reader(ctx.workspace, ctx.models, tool)
    if isinstance(reader, Waits):
        reader.stop_when(lambda: ctx.cancelled)
    source = source_of(ctx, dataset, reader.origin(), tool)
    after = "none" if isinstance(tool, OnnxTool) else tool.replace
    results = Results(dataset, source.id, f"{reader.title}", after)
    always = settings.overwrite or (not isinstance(tool, OnnxTool) and tool.always)
    return _Tool(tool, reader, source, results, set() if always else known_to(dataset, source.id))


def _pass(
    ctx: JobContext,
    settings: TagSettings,
    dataset: Dataset,
    tools: Sequence[_Tool],
    ids: Sequence[int],
    problems: dict[str, dict[str, Any]],
) -> None:
    left = [id for id in ids if any(id not in tool.known for tool in tools)]
    for tool in tools:
        tool.skipped = sum(id in tool.known for id in ids)
        tool.started = time.monotonic()
    title = " + ".join(tool.reader.title for tool in tools)
    if not left:
        ctx.progress(0, 0, title, phase="tag")
        return
    words = Words(dataset, any(tool.reader.wants_words for tool in tools))
    about: dict[int, About] = {}

    def pictures() -> Iterator[Picture]:
        before: dict[int, About] = {}
        for chunk in chunks(dataset, left):
            now = words.about(chunk)
            about.clear()
            about.update(before | now)  # some of the chunk before are still on their way
            before = now
            yield from chunk

    size = max(tool.reader.batch_size for tool in tools)
    threads = decoding_threads(settings.threads)
    readers = [tool.reader for tool in tools]
    seen = 0
    try:
        with Decoder(dataset, readers, threads, ahead=size + max(size, 2 * threads)) as decoder:
            for part in _batches(decoder.each(pictures(), lambda: ctx.cancelled), size):
                good: list[tuple[Picture, list[Any]]] = []
                for picture, value in part:
                    if isinstance(value, PictureError):
                        list_problem(dataset, picture, value, problems)
                    else:
                        good.append((picture, value))
                for place, tool in enumerate(tools):
                    mine = [(p, v[place]) for p, v in good if p.id not in tool.known]
                    _read(ctx, dataset, tool, mine, about, problems)
                seen += len(part)
                where = ", ".join(dict.fromkeys(tool.reader.provider for tool in tools if tool.reader.provider))
                rate = round(seen / max(1e-6, time.monotonic() - tools[0].started), 2)
                ctx.progress(seen, len(left), f"{title} · {where}", phase="tag", pictures_per_second=rate)
                ctx.checkpoint()
        for tool in tools:
            if tool.failure is not None and not tool.tagged and not tool.skipped:
                raise tool.failure
    finally:
        for tool in tools:
            tool.results.flush()
            tool.reader.close()


def _read(
    ctx: JobContext,
    dataset: Dataset,
    tool: _Tool,
    good: Sequence[tuple[Picture, Any]],
    about: dict[int, About],
    problems: dict[str, dict[str, Any]],
) -> None:
    size = tool.reader.batch_size
    for start in range(0, len(good), size):
        part = good[start : start + size]
        found = read_within(tool.reader, ctx.models, [value for _, value in part], [about[p.id] for p, _ in part])
        refused = tool.results.add({picture: one for (picture, _), one in zip(part, found, strict=True)})
        for picture, error in refused.items():
            list_problem(dataset, picture, error, problems)
        tool.tagged += len(part) - len(refused)
        failed = [error for error in refused.values() if not isinstance(error, UnfitPicture)]
        tool.refused += len(failed)
        if failed:
            tool.failure = failed[0]
        if failed and not tool.tagged and tool.refused >= ENOUGH:
            raise failed[0]  # nothing works: it is the tool, not the pictures


def _batches(
    items: Iterator[tuple[Picture, list[Any] | PictureError]], size: int
) -> Iterator[list[tuple[Picture, list[Any] | PictureError]]]:
    part: list[tuple[Picture, list[Any] | PictureError]] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
