"""A dataset as the one file a trainer reads: kohya's metadata, ms-swift's messages, diffusers', DiffSynth's. And back.

Paths in them are relative to the pictures' folder. Each format is a function from (path, caption, picture) to a row.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from engine.dataset.export import CaptionNotText, SidecarReport, caption_of, decoded, rules_of, tags_read
from engine.dataset.library import Dataset
from engine.dataset.records import Picture
from engine.dataset.view import View
from engine.errors import InputError
from engine.settings import nearest
from engine.workspace import replacing

Format = Literal["kohya", "kohya jsonl", "ms-swift", "diffusers jsonl", "diffusers csv", "diffsynth"]
FILES: dict[Format, str] = {
    "kohya": "meta_cap.json",
    "kohya jsonl": "captions.jsonl",
    "ms-swift": "messages.jsonl",
    "diffusers jsonl": "metadata.jsonl",
    "diffusers csv": "metadata.csv",
    "diffsynth": "metadata.csv",
}
_COLUMNS = {"diffusers csv": ("file_name", "text"), "diffsynth": ("image", "prompt")}
PROMPT = "Describe this image."


MOST_COMPARED = 3  # names without a picture for which the nearest is sought; each is compared with all


class WrongMetadata(InputError):
    en = "{name} is not a caption file that can be read: {reason}."
    zh = "{name} 不是可读取的描述文件：{reason_zh}。"


class NoSuchPicture(InputError):
    en = "There is no picture {name}; the nearest is {close}."
    zh = "没有图片 {name}；最接近的是 {close}。"


def export_file(
    dataset: Dataset,
    view: View,
    format: Format,
    target: Path | None = None,
    pictures: Iterable[Picture] | None = None,
    *,
    prompt: str = PROMPT,
) -> Path:
    """Write all captions into one file, whole or not at all; by default under its usual name beside the pictures.

    `prompt` is what ms-swift's messages ask.
    """
    rules = rules_of(dataset)
    chosen = list(view.pictures() if pictures is None else pictures)
    rows = [(path, caption_of(view, rules, picture), picture) for picture in chosen for path in picture.paths]
    path = target or dataset.root / FILES[format]
    with replacing(path, "w") as file:
        file.write(_text(format, rows, prompt))
    return path


def import_file(dataset: Dataset, view: View, path: Path, *, read_as: Literal["tags", "caption"]) -> SidecarReport:
    """Take the captions of such a file in, by the names of its pictures; which format it is shows in its content.

    The trigger word of the dataset's rules is left out of tags: the rules put it there.
    """
    found, report = _read(path, read_as), SidecarReport()
    names = _Names(view)
    texts: dict[int, str] = {}
    for name, text in found.items():
        id = names.picture(name)
        if id is None:
            close = names.nearest(name) if len(report.problems) < MOST_COMPARED else ""
            report.problems[name] = NoSuchPicture(name=name, close=close or "?").to_json()
        else:
            texts[id] = text
            report.done += 1
    if read_as == "caption" and texts:
        dataset.store.write_captions(texts, f"← {path.name}", tool=f"file:{path.name}")
    elif texts:
        rules, known = rules_of(dataset), dict(view.terms())
        readings = {id: tags_read(known, rules, text) for id, text in texts.items()}
        dataset.store.import_readings(dataset.store.source(f"file:{path.name}").id, readings, f"← {path.name}")
    return report


class _Names:
    """Pictures by what other programs call them: the path here, the end of a path elsewhere, with or without suffix; or
    the name alone where only one picture has it."""

    def __init__(self, view: View) -> None:
        self._paths = {path: picture.id for picture in view.pictures() for path in picture.paths}
        self._stems = {path.rsplit(".", 1)[0]: id for path, id in self._paths.items()}
        self._alone: dict[str, set[int]] = defaultdict(set)
        for path, id in self._paths.items():
            last = path.rsplit("/", 1)[-1]
            self._alone[last].add(id)
            self._alone[last.rsplit(".", 1)[0]].add(id)

    def picture(self, name: str) -> int | None:
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            if (id := self._paths.get(end, self._stems.get(end))) is not None:
                return id
        alone = self._alone.get(parts[-1], set()) if parts else set()
        return next(iter(alone)) if len(alone) == 1 else None

    def nearest(self, name: str) -> str:
        return nearest(name.replace("\\", "/"), list(self._paths))


def _text(format: Format, rows: list[tuple[str, str, Picture]], prompt: str) -> str:
    if format == "kohya":
        # kohya looks for a picture by its name without suffix; where two share one, the whole name tells them apart
        stems = Counter(path.rsplit(".", 1)[0] for path, _, _ in rows)
        data = {
            (path if stems[path.rsplit(".", 1)[0]] > 1 else path.rsplit(".", 1)[0]): {
                "caption": caption,
                "train_resolution": [picture.width, picture.height],
            }
            for path, caption, picture in rows
        }
        return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    if format in _COLUMNS:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(_COLUMNS[format])
        writer.writerows((path, caption) for path, caption, _ in rows)
        return out.getvalue()
    row = {"ms-swift": _message(prompt), "kohya jsonl": _image_path}.get(format, _named)
    return "".join(json.dumps(row(path, caption), ensure_ascii=False) + "\n" for path, caption, _ in rows)


def _named(path: str, caption: str) -> dict[str, Any]:
    return {"file_name": path, "text": caption}


def _image_path(path: str, caption: str) -> dict[str, Any]:
    """What kohya's musubi-tuner reads as image_jsonl_file."""
    return {"image_path": path, "caption": caption}


def _message(prompt: str) -> Callable[[str, str], dict[str, Any]]:
    return lambda path, caption: {
        "messages": [
            {"role": "user", "content": f"<image>{prompt}"},
            {"role": "assistant", "content": caption},
        ],
        "images": [path],
    }


def _read(path: Path, read_as: Literal["tags", "caption"]) -> dict[str, str]:
    """{picture: caption} of any of the formats."""
    try:
        text = decoded(path.read_bytes(), path.name).replace("\0", "")
    except CaptionNotText as error:
        raise WrongMetadata(name=path.name, reason="it is not UTF-8 text", reason_zh="不是 UTF-8 文本") from error
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(path, text)
        if path.suffix.lower() == ".jsonl":
            # not splitlines: captions may have the line ends of Unicode in them
            rows = enumerate(text.split("\n"), start=1)
            return dict(_read_row(path, number, json.loads(line)) for number, line in rows if line.strip())
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise WrongMetadata(name=path.name, reason=reason, reason_zh=reason) from error
    if not isinstance(data, dict):
        raise WrongMetadata(
            name=path.name, reason="it is no JSON object of pictures", reason_zh="不是由图片组成的 JSON 对象"
        )
    return {name: _joined(path, name, row, read_as) for name, row in data.items()}


def _read_csv(path: Path, text: str) -> dict[str, str]:
    lines = csv.reader(io.StringIO(text), strict=True)
    try:
        rows = [row for row in lines if row]
    except csv.Error as error:
        at = lines.line_num
        raise WrongMetadata(name=path.name, reason=f"line {at}: {error}", reason_zh=f"第 {at} 行：{error}") from error
    header = [column.strip().lower() for column in rows[0]] if rows else []
    for columns in _COLUMNS.values():
        if set(columns) <= set(header):
            name, caption = map(header.index, columns)
            told = [row for row in rows[1:] if len(row) > name and row[name]]
            return {row[name]: row[caption] if len(row) > caption else "" for row in told}
    found = ", ".join(rows[0]) if rows else "no rows"
    wanted = " or ".join(" and ".join(columns) for columns in _COLUMNS.values())
    raise WrongMetadata(
        name=path.name,
        reason=f"it needs the columns {wanted} and has {found}",
        reason_zh=f"需要列 {wanted}，实际为 {found}",
    )


def _read_row(path: Path, number: int, row: Any) -> tuple[str, str]:
    """One line of jsonl, of any of the kinds."""
    try:
        if "messages" in row:
            answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
            image = row["images"][0]
            return _name(image["path"] if isinstance(image, dict) else image), _words(answers[-1])
        if "image_path" in row:
            return _name(row["image_path"]), _words(row["caption"])
        return _name(row["file_name"]), _words(row["text"])
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__} {error}"
        raise WrongMetadata(
            name=path.name, reason=f"line {number}: {what}", reason_zh=f"第 {number} 行：{what}"
        ) from error


def _joined(path: Path, name: str, row: Any, read_as: Literal["tags", "caption"]) -> str:
    """kohya keeps tags and caption of a picture apart, and trains on the caption with the tags behind it."""
    if not isinstance(row, dict):
        raise WrongMetadata(
            name=path.name,
            reason=f"'{name}' has {str(row)[:40]!r} where caption and tags should be",
            reason_zh=f"“{name}”处为 {str(row)[:40]!r}，应为描述与标签",
        )
    try:
        text, tags = _words(row.get("caption")), _words(row.get("tags"))
    except ValueError as error:
        raise WrongMetadata(name=path.name, reason=f"'{name}': {error}", reason_zh=f"“{name}”：{error}") from error
    return tags or text if read_as == "tags" else ", ".join(filter(None, (text, tags)))


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is no path of a picture")
    return value


def _words(value: Any) -> str:
    """A caption; none is empty, several are one a line, and messages may come in parts."""
    if value is None:
        return ""
    if isinstance(value, list):
        parts = [part.get("text") or "" if isinstance(part, dict) else _words(part) for part in value]
        return "\n".join(filter(None, parts))
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is no text")
    return value
