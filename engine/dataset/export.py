"""Sidecar captions: `a.txt` beside `a.png`, written from the view or taken in. A file is whole or not there at all.

A sidecar that was changed by somebody else since we last read or wrote it is not overwritten unless told so, and two
pictures that share one sidecar (a.png, a.jpg) are listed, not guessed about.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.dataset.captions import CaptionRules, canonical, caption, split_tags
from engine.dataset.library import Dataset, safe_name
from engine.dataset.pictures import content_hash
from engine.dataset.records import GENERAL, Picture, Reading
from engine.dataset.store import Store
from engine.dataset.view import View
from engine.errors import InputError
from engine.progress import ProgressSink, silent
from engine.workspace import replacing

Suffix = Literal[".txt", ".caption"]
SIDECAR_SUFFIXES: tuple[Suffix, ...] = (".txt", ".caption")
MAX_CAPTION = 1 << 20
RULES = "caption_rules"  # the key of a dataset's rules in its store


class SharedSidecar(InputError):
    en = "{first} and {second} would share the caption file {sidecar}. Rename one of the pictures."
    zh = "{first} 与 {second} 会共用描述文件 {sidecar}。请重命名其中一张图片。"


class SidecarChanged(InputError):
    en = "{sidecar} was changed outside Easel and was left as it is. Import it first, or export with overwrite."
    zh = "{sidecar} 在 Easel 之外被修改过，已保持原样。请先导入，或选择覆盖导出。"


class SidecarInTheWay(InputError):
    en = "{sidecar} is a folder, so that no caption can be written there. Rename the folder."
    zh = "{sidecar} 是文件夹，无法写入标注。请重命名该文件夹。"


class CaptionTooLong(InputError):
    en = "{sidecar} has {size} bytes; captions of more than {limit} are not read."
    zh = "{sidecar} 大小为 {size} 字节；超过 {limit} 字节的描述不会被读取。"


class CaptionNotText(InputError):
    en = "{sidecar} is not UTF-8 or UTF-16 text. Save it as UTF-8."
    zh = "{sidecar} 不是 UTF-8 或 UTF-16 文本。请另存为 UTF-8。"


class NoPictureOf(InputError):
    en = "{sidecar} belongs to no picture of this dataset: none has its name. Upload the picture first."
    zh = "{sidecar} 不属于此数据集中的任何图片：没有同名图片。请先上传图片。"


@dataclass
class SidecarReport:
    """Files written or read, those that were right already, and problems as JSON by file."""

    done: int = 0
    unchanged: int = 0
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)


def rules_of(dataset: Dataset) -> CaptionRules:
    return rules_in(dataset.store)


def rules_in(store: Store) -> CaptionRules:
    return CaptionRules.model_validate(store.meta(RULES, {}))


def set_rules(dataset: Dataset, rules: CaptionRules, title: str = "CaptionRules") -> None:
    """Keep the rules with the dataset, as an edit that can be undone."""
    dataset.store.change_meta(RULES, rules.model_dump(mode="json", exclude_defaults=True), title)


def caption_of(view: View, rules: CaptionRules, picture: Picture) -> str:
    """What the trainer would read for this picture."""
    text = view.captions()[view.places([picture.id])[0]] if rules.parts != "tags" else ""
    return caption(rules, view.tags(picture.id), text)


def export_sidecars(
    dataset: Dataset,
    view: View,
    *,
    pictures: Iterable[Picture] | None = None,
    suffix: Suffix = ".txt",
    overwrite: bool = False,
    progress: ProgressSink = silent,
) -> SidecarReport:
    """Write the caption of every picture, or of those given, beside each of its files."""
    dataset.there()
    rules, report, files = rules_of(dataset), SidecarReport(), dataset.store.files()
    chosen = list(view.pictures() if pictures is None else pictures)
    owner: dict[str, str] = {}
    for path in (path for picture in view.pictures() for path in picture.paths):
        owner.setdefault(_sidecar(path, suffix), path)
    for index, picture in enumerate(chosen):
        if index % 100 == 0:
            progress(index, len(chosen), picture.name, phase="export")
        data = caption_of(view, rules, picture).encode()
        for path in picture.paths:
            name = _sidecar(path, suffix)
            with listed(report, name):
                if owner[name] != path and not _same_caption(view, rules, owner[name], data):
                    raise SharedSidecar(first=owner[name], second=path, sidecar=name)
                _write(dataset, files[path].sidecar, path, name, data, overwrite, report)
    progress(len(chosen), len(chosen), phase="export")
    return report


def import_sidecars(
    dataset: Dataset,
    view: View,
    *,
    read_as: Literal["tags", "caption"] = "tags",
    suffixes: Iterable[Suffix] = SIDECAR_SUFFIXES,
    only: Collection[str] | None = None,
    first: bool = False,
) -> SidecarReport:
    """Take in the sidecars that lie beside the pictures, or those of `only`: as a reading of tags, or as caption
    versions; one edit. What is there when a folder is taken in `first` is how the dataset begins, and no edit.

    The trigger word of the dataset's rules is left out of what is read: the rules put it there.
    """
    report, readings, texts = SidecarReport(), {}, {}
    rules, known = rules_of(dataset), dict(view.terms())
    for picture in view.pictures():
        for path in picture.paths:
            names = [_sidecar(path, spelled) for suffix in suffixes for spelled in (suffix, suffix.upper())]
            name = next((name for name in names if (dataset.root / name).is_file()), None)
            if name is None or (only is not None and name not in only):
                continue
            with listed(report, name):
                text, digest = read_caption(dataset.root / name)
                dataset.store.set_sidecar(path, digest)
                readings[picture.id] = tags_read(known, rules, text)
                texts[picture.id] = text.strip()
                report.done += 1
    if read_as == "tags" and readings and first:
        dataset.store.add_readings(dataset.store.source("sidecar").id, readings)
    elif read_as == "tags" and readings:
        dataset.store.import_readings(dataset.store.source("sidecar").id, readings, f"← {len(readings)} .txt")
    elif texts:
        dataset.store.write_captions(texts, f"← {len(texts)} .txt", tool="sidecar")
    return report


def tags_read(known: Mapping[str, str], rules: CaptionRules, text: str) -> Reading:
    """The tags of a text as a reading, without the trigger word. `known` are categories by tag."""
    tags = [tag for tag in split_tags(text) if tag != canonical(rules.trigger_word)]
    return Reading([(tag, known.get(tag, GENERAL), 1.0) for tag in tags])


def add_sidecar(dataset: Dataset, name: str, data: bytes) -> str:
    """Keep a caption file that was sent, beside the picture of its name. Returns the name. It is taken in by an import.

    Raises CaptionNotText, CaptionTooLong, or NoPictureOf where no picture has its name.
    """
    clean = safe_name(name)
    if len(data) > MAX_CAPTION:
        raise CaptionTooLong(sidecar=clean, size=len(data), limit=MAX_CAPTION)
    decoded(data, clean)
    owner = next((p for p in dataset.store.files() if Path(p).stem.casefold() == Path(clean).stem.casefold()), None)
    if owner is None:
        raise NoPictureOf(sidecar=clean)
    target = _sidecar(owner, Path(clean).suffix.lower())
    with replacing(dataset.root / target) as file:
        file.write(data)
    return target


def read_caption(path: Path) -> tuple[str, str]:
    """The text of a caption file and the hash of its bytes. Byte order marks are dropped, CRLF becomes LF."""
    size = path.stat().st_size
    if size > MAX_CAPTION:
        raise CaptionTooLong(sidecar=path.name, size=size, limit=MAX_CAPTION)
    data = path.read_bytes()
    return decoded(data, path.name), content_hash(data)


def decoded(data: bytes, name: str) -> str:
    """Text of a file in UTF-8, or UTF-16 with its mark. Raises CaptionNotText."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaptionNotText(sidecar=name) from error
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def _write(
    dataset: Dataset, known: str | None, path: str, name: str, data: bytes, overwrite: bool, report: SidecarReport
) -> None:
    target = dataset.root / name
    before = target.read_bytes() if target.is_file() else None
    if target.is_dir():
        raise SidecarInTheWay(sidecar=name)
    if before == data:
        report.unchanged += 1
    elif before is not None and not overwrite and content_hash(before) != known:
        raise SidecarChanged(sidecar=name)
    else:
        with replacing(target) as file:
            file.write(data)
        report.done += 1
    dataset.store.set_sidecar(path, content_hash(data))


def _same_caption(view: View, rules: CaptionRules, path: str, data: bytes) -> bool:
    other = next(p for p in view.pictures() if path in p.paths)
    return caption_of(view, rules, other).encode() == data


def _sidecar(path: str, suffix: str) -> str:
    return path.rsplit(".", 1)[0] + suffix


class listed:
    """An error of ours inside is listed under `name`; the rest goes on."""

    def __init__(self, report: SidecarReport, name: str) -> None:
        self.report, self.name = report, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, InputError):
            return False
        self.report.problems[self.name] = error.to_json()
        return True
