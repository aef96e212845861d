"""A dataset as the one file a trainer reads: kohya's metadata, ms-swift's messages, diffusers', DiffSynth's. And back.

Paths in them are relative to the pictures' folder. Each format is a function from (path, caption, picture) to a row.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from engine.dataset.captions import split_tags
from engine.dataset.export import SidecarReport, caption_of, rules_of
from engine.dataset.library import Dataset
from engine.dataset.records import GENERAL, Picture, Reading
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


class WrongMetadata(InputError):
    en = "{name} is not a caption file that can be read: {reason}."
    zh = "{name} 不是可读取的描述文件：{reason}。"


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
    """Take the captions of such a file in, by the names of its pictures; which format it is shows in its content."""
    found, report = _read(path), SidecarReport()
    known = {name: picture.id for picture in view.pictures() for name in picture.paths}
    stems = {name.rsplit(".", 1)[0]: id for name, id in known.items()}
    texts: dict[int, str] = {}
    for name, text in found.items():
        relative = name.replace("\\", "/").removeprefix("./")
        id = known.get(relative, stems.get(relative, known.get(relative.rsplit("/", 1)[-1])))
        if id is None:
            close = nearest(relative, list(known))
            problem = WrongMetadata(name=path.name, reason=f"there is no picture {name}; the nearest is {close}")
            report.problems[name] = problem.to_json()
        else:
            texts[id] = text
            report.done += 1
    if read_as == "caption" and texts:
        dataset.store.write_captions(texts, f"Import {path.name}", tool=f"file:{path.name}")
    elif texts:
        readings = {
            id: Reading([(tag, view.category(tag) or GENERAL, 1.0) for tag in split_tags(text)])
            for id, text in texts.items()
        }
        dataset.store.add_readings(dataset.store.source(f"file:{path.name}").id, readings)
    return report


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


def _read(path: Path) -> dict[str, str]:
    """{picture: caption} of any of the formats."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix.lower() == ".csv":
            return _read_csv(path, text)
        if path.suffix.lower() == ".jsonl":
            return dict(_read_row(json.loads(line)) for line in text.splitlines() if line.strip())
        data = json.loads(text)
        if not isinstance(data, dict):
            raise WrongMetadata(name=path.name, reason="it is no JSON object of pictures")
        return {name: _joined(row) for name, row in data.items()}
    except UnicodeDecodeError as error:
        raise WrongMetadata(name=path.name, reason="it is not UTF-8 text") from error
    except (json.JSONDecodeError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise WrongMetadata(name=path.name, reason=f"{type(error).__name__}: {error}") from error


def _read_csv(path: Path, text: str) -> dict[str, str]:
    rows = list(csv.DictReader(io.StringIO(text)))
    for name, caption in _COLUMNS.values():
        if rows and {name, caption} <= rows[0].keys():
            return {row[name]: row[caption] or "" for row in rows}
    found = ", ".join(rows[0]) if rows else "no rows"
    wanted = " or ".join(" and ".join(columns) for columns in _COLUMNS.values())
    raise WrongMetadata(name=path.name, reason=f"it needs the columns {wanted} and has {found}")


def _read_row(row: dict[str, Any]) -> tuple[str, str]:
    if "messages" in row:
        answers = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        return row["images"][0], answers[-1]
    if "image_path" in row:
        return row["image_path"], row["caption"]
    return row["file_name"], row["text"]


def _joined(row: dict[str, Any]) -> str:
    """kohya keeps tags and caption of a picture apart."""
    return row.get("caption") or row.get("tags") or ""
