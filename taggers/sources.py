"""Under whose name a tool of a run writes, which of its tags count, and what was wrong with a picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.dataset.arrays import TAGGER
from engine.dataset.decoding import PictureGone
from engine.dataset.library import Dataset
from engine.dataset.records import Picture, Policy, Source
from engine.errors import EaselError, PictureError
from engine.jobs.types import JobContext
from taggers.catalogue import tagger
from taggers.reader import Origin, UnfitPicture
from taggers.settings import Captioner, OnnxTool


def source_of(ctx: JobContext, dataset: Dataset, origin: Origin, tool: OnnxTool | Captioner) -> Source:
    source = dataset.store.source(origin.tool, origin.version, origin.settings, policy=origin.policy)
    if isinstance(tool, OnnxTool):
        return replace(source, policy=_moved(ctx, dataset, source, tool))
    return source


def list_problem(dataset: Dataset, picture: Picture, error: EaselError, problems: dict[str, dict[str, Any]]) -> None:
    problems[picture.path] = error.to_json()
    if isinstance(error, PictureError) and not isinstance(error, PictureGone | UnfitPicture):
        dataset.store.set_problem(picture.path, error.to_json())


def _moved(ctx: JobContext, dataset: Dataset, source: Source, tool: OnnxTool) -> Policy:
    """The source's policy with what this run says of it."""
    wanted = replace(
        source.policy,
        thresholds={**source.policy.thresholds, **tool.thresholds},
        mcut=source.policy.mcut if tool.mcut is None else tool.mcut,
        weight=source.policy.weight if tool.weight is None else tool.weight,
        subtracts=source.policy.subtracts if tool.subtracts is None else tool.subtracts,
    )
    dataset.store.set_policy(source.id, wanted, f"Thresholds of {source.tool.removeprefix(TAGGER)}")
    if tool.keep:
        tagger(ctx.workspace, tool.tagger).keep(wanted.thresholds, wanted.mcut)
    return wanted
