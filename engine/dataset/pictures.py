"""From files to pictures: scanning a dataset's folder, taking uploads in, thumbnails.

A picture that can't be used is listed with its reason and never stops the rest.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from engine.dataset.decoding import PICTURE_SUFFIXES, NotAPicture, PictureFacts, PictureGone, open_rgb, read_facts
from engine.dataset.library import Dataset, free_name, safe_name
from engine.dataset.mask_names import masks_among
from engine.dataset.records import FileRow, Picture
from engine.errors import PictureError
from engine.progress import ProgressSink, silent
from engine.workspace import is_text, replacing

THUMBNAIL_SIZE = 320
_BATCH = 256


@dataclass
class ScanReport:
    """What a scan found, as counts; `problems` are errors as JSON by path."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    gone: int = 0
    unchanged: int = 0
    masks: int = 0  # files that are masks of pictures, and so no pictures
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """The picture files of a folder beside what the store knows of them. Nothing was opened."""

    known: dict[str, FileRow]
    found: dict[str, tuple[int, int]]  # size and mtime_ns by path
    masks: int

    @property
    def new(self) -> list[str]:
        return [path for path, (size, mtime) in self.found.items() if not _same(self.known.get(path), size, mtime)]


@dataclass(frozen=True)
class _Seen:
    path: str
    size: int
    mtime_ns: int
    hash: str = ""
    facts: PictureFacts | None = None
    error: PictureError | None = None


def listing(dataset: Dataset) -> Listing:
    found = dict(files_in(dataset.there()))
    masks = masks_among(found)
    for path in masks:
        del found[path]
    return Listing(dataset.store.files(), found, len(masks))


def scan(
    dataset: Dataset, progress: ProgressSink = silent, *, threads: int = 4, listed: Listing | None = None
) -> ScanReport:
    """Bring the store up to date with the folder. Files with the size and time they had are not read again."""
    listed = listed or listing(dataset)
    known, found, new = listed.known, listed.found, listed.new
    problems = {path: row.problem for path, row in known.items() if row.problem and path in found}
    report = ScanReport(masks=listed.masks, problems=problems)
    report.unchanged = len(found) - len(new)
    gone = [path for path in known if path not in found]
    hashes = {p.id: p.hash for p in dataset.store.pictures({known[path].picture for path in gone} - {None})}  # type: ignore[arg-type]
    lost = {hashes.get(known[path].picture or 0) for path in gone}
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(new), _BATCH):
            part = new[start : start + _BATCH]
            progress(start, len(new), part[0], phase="scan")
            seen = list(pool.map(lambda path: _look(dataset.root, path), part))
            with dataset.store.writing():
                for one in seen:
                    _record(dataset, one, known.get(one.path), lost, report)
    dataset.store.forget_files(gone)
    report.gone = len(gone) - report.moved
    progress(len(new), len(new), phase="scan")
    return report


def add_upload(dataset: Dataset, name: str, data: bytes) -> str:
    """Take one uploaded picture in under a safe, free name; returns it. Raises the PictureError that says why not.

    The same content under another name is not stored again: its name is returned, and it is taken in again where it had
    been removed from the dataset.
    """
    clean = safe_name(name)
    if Path(clean).suffix.lower() not in PICTURE_SUFFIXES:
        raise NotAPicture(name=clean, reason=f"only {', '.join(PICTURE_SUFFIXES)}")
    facts = read_facts(data, clean)
    digest = content_hash(data)
    twin = dataset.store.with_content(digest)
    if twin is not None:
        dataset.store.return_pictures([twin.id], f"+ ▢ {twin.name}")
        return twin.path
    free = _claim(dataset.root, clean)
    try:
        with replacing(dataset.root / free) as file:
            file.write(data)
    except BaseException:
        (dataset.root / free).unlink(missing_ok=True)
        raise
    stat = os.stat(dataset.root / free)
    seen = _Seen(free, stat.st_size, stat.st_mtime_ns, digest, facts)
    with dataset.store.writing():
        _record(dataset, seen, None, set(), ScanReport())
    return free


def thumbnail(dataset: Dataset, picture: Picture, size: int = THUMBNAIL_SIZE) -> Path:
    """A WebP of at most `size` x `size`, made when first asked for. One that can't be decoded is marked."""
    path = dataset.thumbnails / picture.hash[:2] / f"{picture.hash[2:]}-{size}.webp"
    if path.is_file():
        return path
    try:
        image = open_rgb(dataset.path(picture.path), at_least=size)
    except PictureError as error:
        dataset.store.set_problem(picture.path, error.to_json())
        raise
    image.thumbnail((size, size), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", quality=80, method=2)
    with replacing(path) as file:
        file.write(encoded.getvalue())
    return path


def content_hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _claim(root: Path, name: str) -> str:
    """A free name near `name`, taken at once by an empty file, so that two uploads at a time never share one."""
    while True:
        free = free_name(name, [entry.name for entry in os.scandir(root)])
        try:
            os.close(os.open(root / free, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            continue
        return free


def files_in(root: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """(path relative to root with forward slashes, (size, mtime_ns)) of every picture file, hidden folders left out."""
    for folder, folders, files in os.walk(root):  # plain text throughout: there may be a hundred thousand
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = "" if Path(folder) == root else f"{Path(folder).relative_to(root).as_posix()}/"
        for name in sorted(files):
            if name.startswith(".") or not name.lower().endswith(PICTURE_SUFFIXES):
                continue
            path = below + name
            if not is_text(path):
                continue  # bytes that no page and no database can hold
            try:
                stat = os.stat(os.path.join(folder, name))
            except OSError:
                continue  # gone since it was listed, or a link to nowhere
            yield path, (stat.st_size, stat.st_mtime_ns)


def _look(root: Path, path: str) -> _Seen:
    size = mtime = 0
    digest = ""
    try:
        with open(root / path, "rb") as file:
            stat = os.fstat(file.fileno())
            size, mtime = stat.st_size, stat.st_mtime_ns
            data = file.read()
        digest = content_hash(data)
        return _Seen(path, size, mtime, digest, read_facts(data, path))
    except PictureError as error:
        return _Seen(path, size, mtime, digest, error=error)
    except FileNotFoundError:
        return _Seen(path, size, mtime, error=PictureGone(name=path))
    except OSError as error:
        return _Seen(path, size, mtime, error=NotAPicture(name=path, reason=error.strerror))


def _record(dataset: Dataset, seen: _Seen, before: FileRow | None, lost: set[str | None], report: ScanReport) -> None:
    if seen.error is not None or seen.facts is None:
        error = seen.error or PictureGone(name=seen.path)
        report.problems[seen.path] = error.to_json()
        dataset.store.put_file(seen.path, None, seen.size, seen.mtime_ns, error.to_json())
        return
    report.problems.pop(seen.path, None)
    picture = dataset.store.add_picture(seen.hash, bytes=seen.size, **vars(seen.facts))
    dataset.store.put_file(seen.path, picture, seen.size, seen.mtime_ns)
    if before is not None:
        report.changed += 1
    elif seen.hash in lost:
        report.moved += 1
    else:
        report.added += 1


def _same(row: FileRow | None, size: int, mtime_ns: int) -> bool:
    return row is not None and (row.size, row.mtime_ns) == (size, mtime_ns)
