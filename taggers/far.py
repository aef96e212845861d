"""One tool of a run on the machines of a cluster: files are read here, some batches ahead of what is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.dataset.decoding import PictureGone
from engine.dataset.library import Dataset
from engine.dataset.records import Picture, Source
from engine.jobs.types import JobContext
from taggers.cluster import Cluster, Sent
from taggers.passes import Words, chunks
from taggers.results import Results, known_to
from taggers.settings import Captioner, OnnxTool, TagSettings
from taggers.sources import list_problem, source_of


@dataclass
class FarTool:
    """A tool that read on a cluster, for the job's result."""

    source: Source
    results: Results
    tagged: int = 0
    skipped: int = 0
    where: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def to_json(self) -> dict[str, Any]:
        return {
            "tool": self.source.tool,
            "source": self.source.id,
            "tagged": self.tagged,
            "skipped": self.skipped,
            "cut": self.results.cut,
            "provider": ", ".join(sorted(self.where)),
            "pictures_per_second": round(self.tagged / max(1e-6, time.monotonic() - self.started), 2),
        }


def far_pass(
    ctx: JobContext,
    settings: TagSettings,
    dataset: Dataset,
    tool: OnnxTool | Captioner,
    ids: Sequence[int],
    problems: dict[str, dict[str, Any]],
) -> FarTool:
    ctx.progress(0, 0, settings.ray, phase="load")
    cluster = Cluster(settings.ray, ctx.workspace, tool)
    try:
        source = source_of(ctx, dataset, cluster.origin(), tool)
        done = FarTool(source, Results(dataset, source.id, source.tool, getattr(tool, "replace", "none")))
        always = settings.overwrite or (not isinstance(tool, OnnxTool) and tool.always)
        known = set() if always else known_to(dataset, source.id)
        left = [id for id in ids if id not in known]
        done.skipped = len(ids) - len(left)
        words = Words(dataset, cluster.wants_words())
        sent: dict[int, list[Picture]] = {}

        def batches() -> Iterator[list[Sent]]:
            number = 0
            for chunk in chunks(dataset, left):
                about = words.about(chunk)
                for start in range(0, len(chunk), tool.batch_size):
                    pictures: list[Picture] = []
                    batch: list[Sent] = []
                    for picture in chunk[start : start + tool.batch_size]:
                        try:
                            data = dataset.path(picture.path).read_bytes()
                        except OSError:
                            list_problem(dataset, picture, PictureGone(name=picture.path), problems)
                            continue
                        pictures.append(picture)
                        batch.append((picture.name, data, about[picture.id]))
                    sent[number] = pictures
                    number += 1
                    yield batch

        seen = 0
        for number, found, where in cluster.read(batches()):
            pictures = sent.pop(number)
            seen += len(pictures)
            done.where.add(where)
            refused = done.results.add(dict(zip(pictures, found, strict=True)))
            done.tagged += len(pictures) - len(refused)
            for picture, error in refused.items():
                list_problem(dataset, picture, error, problems)
            ctx.progress(seen, len(left), f"{source.tool} · {len(done.where)} ×", phase="tag")
            ctx.checkpoint()
        done.results.flush()
        return done
    finally:
        cluster.close()
