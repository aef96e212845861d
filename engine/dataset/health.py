"""The health card of a dataset: its figures, and what is worth mending, each with a filter that shows the pictures.

Findings are advice. What counts as small or many is said beside each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.dataset.captions import pretty
from engine.dataset.export import rules_of
from engine.dataset.library import Dataset
from engine.dataset.query import matching
from engine.dataset.records import RATING
from engine.dataset.view import View

FEW_PICTURES = 10
SMALL_SIDE = 512  # where nobody says what is trained at
ODD_SHAPE = 2.5  # one side more than this many times the other
EVERYWHERE = 0.9  # share of the pictures


@dataclass(frozen=True)
class Finding:
    """Something to look at. `filter` shows the pictures it is about; empty when it is about the whole set."""

    code: str
    count: int
    en: str
    zh: str
    filter: str = ""


@dataclass(frozen=True)
class Health:
    """Figures of the pictures that are not removed. Sides in pixels."""

    pictures: int
    tagged: int
    captioned: int
    tags: int
    tags_per_picture: float
    shorter_side: tuple[int, int, int]  # least, median, most
    findings: tuple[Finding, ...]


def health(dataset: Dataset, view: View, side: int = SMALL_SIDE) -> Health:
    """Fast enough to show beside the grid: no picture is opened. A picture is small below `side`, in pixels."""
    pictures = view.pictures()
    sides = sorted(min(p.width, p.height) for p in pictures) or [0]
    per_picture = view.hits(lambda _, category: category != RATING)
    counts = [count for count in view.counts() if count.category != RATING]
    found = [
        *_about_files(dataset, len(pictures)),
        *_about_pictures(view, side),
        *_about_tags(dataset, view, [(count.name, count.pictures) for count in counts], len(pictures)),
    ]
    return Health(
        pictures=len(pictures),
        tagged=int((per_picture > 0).sum()),
        captioned=sum(map(bool, view.captions())),
        tags=len(counts),
        tags_per_picture=round(float(per_picture.mean()), 2) if len(pictures) else 0.0,
        shorter_side=(sides[0], sides[len(sides) // 2], sides[-1]),
        findings=tuple(found),
    )


def _about_files(dataset: Dataset, pictures: int) -> list[Finding]:
    found: list[Finding] = []
    if bad := len(dataset.store.problems()):
        en = f"Files that can't be read and take no part: {bad}. The list says why; replace or delete them."
        zh = f"{bad} 个文件无法读取，不会参与训练。列表中有原因，请替换或删除。"
        found.append(Finding("unreadable", bad, en, zh))
    if pictures < FEW_PICTURES:
        en = f"Few pictures: {pictures}. A concept needs about {FEW_PICTURES} to 30 that differ in ground and pose."
        zh = f"只有 {pictures} 张图片。学习一个概念通常需要 {FEW_PICTURES} 到 30 张背景和姿态各异的图片。"
        found.append(Finding("few", pictures, en, zh))
    return found


def _about_pictures(view: View, side: int) -> list[Finding]:
    checks = [
        (
            "small",
            f"res:<{side}",
            "Pictures with a side under {side} pixels, to be enlarged: {n}. Use larger ones, or train smaller.",
            "{n} 张图片的短边不足 {side} 像素，训练时会被放大。请换用更大的图片，或降低训练分辨率。",
        ),
        (
            "odd shape",
            f"ar:>{ODD_SHAPE} OR ar:<{1 / ODD_SHAPE}",
            "Very wide or very tall pictures, of which much is cut: {n}. Crop them yourself.",
            "{n} 张图片过宽或过长，训练时会被大幅裁剪。请自行裁剪。",
        ),
        (
            "near copies",
            "dup:yes",
            "Near copies of other pictures, which count twice: {n}. Keep the best of each.",
            "{n} 张图片与其他图片几乎相同，会被重复学习。每组请只保留最好的一张。",
        ),
        (
            "no words",
            "-has:tags -has:caption",
            "Pictures with neither tags nor a caption: {n}. Run a tagger, or write them.",
            "{n} 张图片既没有标签也没有描述。请运行打标器或手动填写。",
        ),
        (
            "loops",
            "prose:loops OR prose:unfinished",
            "Caption texts that go round in circles or end in the middle: {n}. Have them written again, or shorter.",
            "{n} 条描述陷入重复或中途截断。请重新生成，或改用较短的长度。",
        ),
        (
            "phrases",
            "prose:phrases",
            "Caption texts with empty phrases such as 'this image shows': {n}. Replace them in all under Change many.",
            "{n} 条描述含有“this image shows”之类的空话。可在“批量修改”中统一替换。",
        ),
        (
            "contradictions",
            "prose:contradicts",
            "Caption texts that say something else than the tags (hair, eyes, people): {n}. Look which is right.",
            "{n} 条描述与标签矛盾（发色、瞳色、人数等）。请确认哪一方正确。",
        ),
    ]
    found = []
    for code, words, en, zh in checks:
        count = int(np.count_nonzero(matching(view, words)))
        if count:
            values = {"n": count, "side": side}
            found.append(Finding(code, count, en.format(**values), zh.format(**values), words))
    return found


def _about_tags(dataset: Dataset, view: View, counts: list[tuple[str, int]], pictures: int) -> list[Finding]:
    found = []
    rules = rules_of(dataset)
    if not rules.trigger_word:
        en = "No trigger word is set. Without one the concept can't be called or kept apart from what the model knows."
        zh = "尚未设置触发词。没有触发词，就无法单独调用新概念，也无法与模型已有知识区分。"
        found.append(Finding("no trigger word", 1, en, zh))
    everywhere = [name for name, n in counts if pictures >= FEW_PICTURES and n > EVERYWHERE * pictures]
    if everywhere:
        shown = ", ".join(pretty(name) for name in everywhere[:5])
        en = f"Tags of nearly all pictures: {shown} ({len(everywhere)}). The trigger word won't learn what they mean."
        zh = f"几乎所有图片都有：{shown}（共 {len(everywhere)} 个）。它们的含义不会并入触发词。"
        found.append(Finding("everywhere", len(everywhere), en, zh, f'tag:"{everywhere[0]}"'))
    once = sum(n == 1 for _, n in counts)
    if counts and once > len(counts) / 2 and pictures >= FEW_PICTURES:
        en = f"{once} of {len(counts)} tags are in one picture only; many may be mistakes. Look through them."
        zh = f"{len(counts)} 个标签中有 {once} 个只出现一次，其中不少可能是误标。请检查。"
        found.append(Finding("once", once, en, zh))
    return found
