"""Datasets as zip files: taking one in without trusting anything it says, and packing pictures with their captions.

Entries are read one by one against limits on number, size and compression; absolute paths, `..`, links and everything
that is neither picture nor caption is listed and left out. Names are made safe, and no file that is there is replaced;
one that is there with this very content is taken as it is, so that unpacking may be repeated.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from engine.dataset.decoding import PICTURE_SUFFIXES
from engine.dataset.export import SIDECAR_SUFFIXES, caption_of, rules_of
from engine.dataset.library import Dataset, free_name, safe_name
from engine.dataset.mask_files import mask_png
from engine.dataset.mask_names import mask_name
from engine.dataset.pictures import scan
from engine.dataset.records import Picture
from engine.dataset.view import View
from engine.errors import DiskFull, EaselError, InputError
from engine.progress import ProgressSink, silent
from engine.workspace import replacing

MAX_ENTRIES = 200_000
MAX_TOTAL = 64 << 30
MAX_RATIO = 200  # of a whole entry: pictures do not compress; a bomb does, by thousands
_BLOCK = 1 << 20


class NotAZip(InputError):
    en = "{name} can't be read as a zip file: {reason}. Pack it again."
    zh = "无法将 {name} 作为 zip 文件读取：{reason}。请重新打包。"


class ZipTooLarge(InputError):
    en = "{name} would unpack to {size}, more than {limit}. Split it, or raise the limit in the settings."
    zh = "{name} 解压后为 {size}，超过 {limit}。请拆分，或在设置中提高上限。"


class BadZipEntry(InputError):
    en = "{entry} was left out: {reason}."
    zh = "已跳过 {entry}：{reason_zh}。"


@dataclass
class UnpackReport:
    """Files taken in by the names they have now, and entries left out with the reason as JSON."""

    files: list[str] = field(default_factory=list)
    left_out: dict[str, dict[str, Any]] = field(default_factory=dict)


def unpack(
    dataset: Dataset,
    archive: Path | IO[bytes],
    name: str,
    progress: ProgressSink = silent,
    *,
    max_total: int = MAX_TOTAL,
) -> UnpackReport:
    """Take the pictures and captions of a zip file into the dataset and scan it. Folders inside it stay folders."""
    report = UnpackReport()
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            _refuse_bombs(name, entries, max_total)
            _refuse_too_full(dataset.root, entries)
            names = _Names(dataset.root)
            for number, entry in enumerate(entries):
                progress(number, len(entries), entry.filename, phase="unpack")
                try:
                    report.files.append(_take(names, packed, entry))
                except BadZipEntry as error:
                    report.left_out[entry.filename] = error.to_json()
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise NotAZip(name=name, reason=error) from error
    scan(dataset, progress)
    return report


def pack(
    dataset: Dataset,
    view: View,
    target: Path,
    pictures: Iterable[Picture] | None = None,
    progress: ProgressSink = silent,
) -> int:
    """Write pictures, their captions as .txt and their masks under `masks/` into a zip file, whole or not at all.

    Returns how many pictures.
    """
    rules, masks = rules_of(dataset), dataset.store.marks("mask")
    chosen = list(view.pictures() if pictures is None else pictures)
    with replacing(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for number, picture in enumerate(chosen):
            progress(number, len(chosen), picture.name, phase="pack")
            path = dataset.path(picture.path)
            if not path.is_file():
                continue
            packed.write(path, picture.path)
            packed.writestr(f"{picture.path.rsplit('.', 1)[0]}.txt", caption_of(view, rules, picture))
            if picture.id in masks:
                packed.writestr(mask_name(picture.path, "folder"), mask_png(dataset, picture, masks[picture.id]))
    return len(chosen)


def _refuse_bombs(name: str, entries: list[zipfile.ZipInfo], max_total: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise ZipTooLarge(name=name, size=f"{len(entries)} files", limit=f"{MAX_ENTRIES} files")
    total = sum(entry.file_size for entry in entries)
    if total > max_total:
        raise ZipTooLarge(name=name, size=f"{total / 1e9:.1f} GB", limit=f"{max_total / 1e9:.1f} GB")


def _refuse_too_full(root: Path, entries: list[zipfile.ZipInfo]) -> None:
    need, free = sum(entry.file_size for entry in entries), shutil.disk_usage(root).free
    if need > free:
        raise DiskFull(path=root, need=f"{need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


class _Names:
    """File names that are taken, by folder, and the stems that entries were given: a caption keeps its picture's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._taken: dict[Path, list[str]] = {}
        self._stems: dict[str, str] = {}

    def folder(self, parts: tuple[str, ...]) -> Path:
        folder = self.root.joinpath(*map(safe_name, parts))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def free(self, folder: Path, entry: PurePosixPath) -> str:
        stem = str(entry.with_suffix(""))
        wanted = f"{self._stems.get(stem, Path(safe_name(entry.name)).stem)}{entry.suffix}"
        free = free_name(wanted, self._names(folder))
        self._stems.setdefault(stem, Path(free).stem)
        return free

    def keep(self, folder: Path, name: str) -> None:
        self._names(folder).append(name)

    def same(self, folder: Path, entry: PurePosixPath, info: zipfile.ZipInfo) -> Path | None:
        """The file of this name when it has this very content already."""
        path = folder / safe_name(entry.name)
        if not path.is_file() or path.stat().st_size != info.file_size:
            return None
        with open(path, "rb") as file:
            crc = 0
            while block := file.read(_BLOCK):
                crc = zlib.crc32(block, crc)
        return path if crc == info.CRC else None

    def _names(self, folder: Path) -> list[str]:
        if folder not in self._taken:
            self._taken[folder] = [path.name for path in folder.iterdir()]
        return self._taken[folder]


def _take(names: _Names, packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    """Write one entry under a safe and free name; returns it relative to root."""
    parts = PurePosixPath(entry.filename.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")):
        raise BadZipEntry(entry=entry.filename, reason="its path leaves the folder", reason_zh="其路径超出了文件夹")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise BadZipEntry(entry=entry.filename, reason="it is a link", reason_zh="它是链接")
    if not parts.name.lower().endswith((*PICTURE_SUFFIXES, *SIDECAR_SUFFIXES)) or parts.name.startswith("."):
        reason = {"reason": "it is neither a picture nor a caption", "reason_zh": "既不是图片也不是描述"}
        raise BadZipEntry(entry=entry.filename, **reason)
    if entry.flag_bits & 1:
        raise BadZipEntry(entry=entry.filename, reason="it is encrypted", reason_zh="它已加密")
    if entry.file_size > MAX_RATIO * max(entry.compress_size, 1024):
        reason = {"reason": "it is compressed more than any picture is", "reason_zh": "其压缩率超过任何图片"}
        raise BadZipEntry(entry=entry.filename, **reason)
    try:
        folder = names.folder(parts.parts[:-1])
        if (there := names.same(folder, parts, entry)) is not None:
            return there.relative_to(names.root).as_posix()
        free = names.free(folder, parts)
        _copy(packed, entry, folder / free)
    except OSError as error:
        raise BadZipEntry(entry=entry.filename, reason=str(error), reason_zh=str(error)) from error
    names.keep(folder, free)
    return (folder / free).relative_to(names.root).as_posix()


def _copy(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    left = entry.file_size  # what the header promises; a lying one is caught here, before the disk is full
    try:
        with packed.open(entry) as source, replacing(target) as file:
            while block := source.read(_BLOCK):
                left -= len(block)
                if left < 0:
                    raise BadZipEntry(
                        entry=entry.filename, reason="it is larger than it says", reason_zh="实际大小超过其声明"
                    )
                file.write(block)
    except (zipfile.BadZipFile, EOFError, RuntimeError, OSError) as error:
        if isinstance(error, EaselError):
            raise
        raise BadZipEntry(entry=entry.filename, reason=str(error), reason_zh=str(error)) from error
