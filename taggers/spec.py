"""What a tagger model takes and gives, as data: one TaggerSpec is one kind of model. It opens no session."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.dataset.records import RATING
from engine.errors import FileError
from taggers.onnx_header import OnnxHeader

Fit = Literal["pad", "squash", "scale and pad"]
Resample = Literal["bicubic", "lanczos", "bilinear"]


_RATED = re.compile("^rating[:_]")


class WrongVocabulary(FileError):
    en = "{path} is not the tag list of a {kind} model: {reason}. Download it again from where the model came from."
    zh = "{path} 不是 {kind} 模型的标签列表：{reason}。请从模型来源重新下载。"


@dataclass(frozen=True)
class Vocabulary:
    """Canonical tag names and their categories, in the order of the model's outputs."""

    names: tuple[str, ...]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Pixels:
    """How a picture becomes the model's input. `mean` and `std` apply to 0..1 pixels; without them 0..255 goes in.

    fit: `pad` makes a square of pad_colour around the whole picture, then resizes; `scale and pad` resizes first;
    `squash` resizes both sides whatever the aspect ratio.
    """

    layout: Literal["NHWC", "NCHW"]
    channels: Literal["RGB", "BGR"]
    fit: Fit
    pad_colour: tuple[int, int, int] = (255, 255, 255)
    resample: Resample = "bicubic"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int | None = None  # when the graph leaves height and width open


@dataclass(frozen=True)
class TaggerSpec:
    """One kind of tagger. `recognise(folder, header)`: whether the files of a folder are of this kind."""

    name: str
    title: str
    pixels: Pixels
    output: Literal["probability", "logit"]
    read_vocabulary: Callable[[Path], Vocabulary]
    recognise: Callable[[Path, OnnxHeader], bool]
    thresholds: Mapping[str, float]
    licence: str
    output_name: str | None = None  # the first output when None
    gated: bool = False
    presets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # other thresholds that were published
    sources: tuple[str, ...] = field(default=())  # repositories known to have this contract


def read_csv_vocabulary(path: Path, categories: Mapping[str, str], kind: str) -> Vocabulary:
    """A CSV with at least the columns name and category. `categories` maps the numbers in it to our words."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, kind))))
    except csv.Error as error:  # a quote that is never closed
        raise WrongVocabulary(path=path.name, kind=kind, reason=str(error)) from error
    if not rows or not {"name", "category"} <= rows[0].keys():
        found = ", ".join(rows[0]) if rows else "nothing"
        raise WrongVocabulary(
            path=path.name, kind=kind, reason=f"it needs the columns name and category and has {found}"
        )
    for number, row in enumerate(rows, start=2):
        if not row["name"] or row["category"] not in categories:
            raise WrongVocabulary(
                path=path.name, kind=kind, reason=f"line {number} has the category {row['category']!r}"
            )
    return vocabulary((row["name"], categories[row["category"]]) for row in rows)


def vocabulary(rows: Iterable[tuple[str, str]]) -> Vocabulary:
    """From (name, category) pairs. Ratings get a name of their own, because `general` may be a tag as well."""
    pairs = [(f"rating:{_RATED.sub('', name)}" if category == RATING else name, category) for name, category in rows]
    return Vocabulary(tuple(name for name, _ in pairs), tuple(category for _, category in pairs))


def indexed_vocabulary(path: Path, kind: str, mapping: dict[str, Any]) -> Vocabulary:
    """From {"0": {"tag", "category"}, ...} or {"idx_to_tag": {"0": tag}, "tag_to_category": {tag: category}}."""
    try:
        if "idx_to_tag" in mapping:
            words, categories = mapping["idx_to_tag"], mapping["tag_to_category"]
            rows = {int(i): (str(tag), str(categories[tag])) for i, tag in words.items()}
        else:
            rows = {int(i): (str(row["tag"]), str(row["category"])) for i, row in mapping.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WrongVocabulary(path=path.name, kind=kind, reason=f"{type(error).__name__} {error}") from error
    if sorted(rows) != list(range(len(rows))) or not rows:
        raise WrongVocabulary(path=path.name, kind=kind, reason=f"its {len(rows)} numbers have gaps")
    return vocabulary((rows[i][0], rows[i][1].lower()) for i in range(len(rows)))


def read_json(path: Path, kind: str) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path, kind))
    except ValueError as error:
        raise WrongVocabulary(path=path.name, kind=kind, reason=f"it is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise WrongVocabulary(path=path.name, kind=kind, reason="it is no JSON object")
    return data


def read_text(path: Path, kind: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise WrongVocabulary(path=path.name, kind=kind, reason="the file is missing") from error
    except UnicodeDecodeError as error:
        raise WrongVocabulary(path=path.name, kind=kind, reason="it is not UTF-8 text") from error
