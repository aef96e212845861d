"""Datasets by name: a folder under `datasets/`, whose pictures lie in it or in a folder elsewhere that the owner names.

What Easel keeps (annotations, thumbnails) lies in `datasets/NAME/.easel`, never among somebody's pictures.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from engine.dataset.store import Store
from engine.errors import CHECK_PATH, InputError, NotFound
from engine.workspace import Workspace, inside, is_text

OURS = ".easel"
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


class BadName(InputError):
    en = "'{name}' can't be used as a name: {reason}."
    zh = "“{name}”不能用作名称：{reason_zh}。"


class NameTaken(InputError):
    en = "There is a dataset '{name}' already. Choose another name."
    zh = "数据集“{name}”已存在。请换一个名称。"


@dataclass(frozen=True)
class Dataset:
    """An open dataset. `root` is where its pictures lie."""

    name: str
    folder: Path
    root: Path
    store: Store

    @property
    def thumbnails(self) -> Path:
        return self.folder / OURS / "thumbnails"

    @property
    def external(self) -> bool:
        return self.root != self.folder

    def there(self) -> Path:
        """Where the pictures lie; raises NotFound where that folder is gone, as that of a disk that was taken off.

        Without it everything would look deleted.
        """
        if not self.root.is_dir():
            remedy = {"remedy": "Attach its disk, or move it back.", "remedy_zh": "请接上所在磁盘，或将其移回原处。"}
            raise NotFound(what="folder of pictures", what_zh="图片文件夹", name=self.root, **remedy)
        return self.root

    def path(self, relative: str) -> Path:
        """A picture's file. Raises OutsideWorkspace for names that leave the folder."""
        return inside(self.root, relative)

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Library:
    """The datasets of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def names(self) -> list[str]:
        if not self.workspace.datasets.is_dir():
            return []
        folders = (e.name for e in os.scandir(self.workspace.datasets) if e.is_dir() and not e.name.startswith("."))
        return sorted(filter(is_text, folders), key=str.casefold)

    def create(self, name: str, pictures: Path | None = None) -> Dataset:
        """A new dataset; `pictures` is a folder elsewhere that holds them, which stays as it is."""
        checked = check_name(name)
        if checked.casefold() in (known.casefold() for known in self.names()):
            raise NameTaken(name=checked)
        if pictures is not None and not pictures.is_dir():
            raise NotFound(what="folder", what_zh="文件夹", name=pictures, **CHECK_PATH)
        folder = self.workspace.datasets / checked
        folder.mkdir(parents=True)
        dataset = self._open(folder)
        if pictures is None:
            return dataset
        dataset.store.set_meta("root", str(pictures.resolve()))
        dataset.close()
        return self._open(folder)

    def open(self, name: str) -> Dataset:
        """A dataset by name. A folder of pictures that was copied into `datasets/` is one."""
        return self._open(self.folder_of(name))

    def folder_of(self, name: str) -> Path:
        """Where a dataset lies; nothing is opened. Raises NotFound."""
        folder = inside(self.workspace.datasets, name)
        if name in ("", ".") or not os.path.isdir(folder):
            known = ", ".join(self.names()) or "none"
            raise NotFound(
                what="dataset", what_zh="数据集", name=name, remedy=f"There are: {known}.", remedy_zh=f"现有：{known}。"
            )
        return folder

    def at(self, pictures: Path) -> Dataset:
        """The dataset whose pictures lie in this folder, made where there is none yet."""
        wanted = pictures.resolve()
        if wanted.parent == self.workspace.datasets.resolve():
            return self.open(wanted.name)
        for name in self.names():
            dataset = self.open(name)
            if dataset.root == wanted:
                return dataset
            dataset.close()
        return self.create(free_name(safe_name(wanted.name), self.names()), wanted)

    def _open(self, folder: Path) -> Dataset:
        store = Store(folder / OURS / "dataset.db")
        root = store.meta("root")
        return Dataset(folder.name, folder, Path(root) if root else folder, store)


def check_name(name: str) -> str:
    """The name of a dataset as it may be on every system, or BadName."""
    wanted = unicodedata.normalize("NFC", name).strip()
    if not wanted:
        raise BadName(name=name, reason="it is empty", reason_zh="名称为空")
    if wanted != safe_name(wanted):
        raise BadName(
            name=name,
            reason='it has one of / \\ : * ? " < > |, a dot at an end, or is too long',
            reason_zh='含有 / \\ : * ? " < > | 之一，首尾有句点，或过长',
        )
    return wanted


def safe_name(name: str) -> str:
    """A file name from a browser or an archive as one that no system minds; letters of any script and emoji stay.

    Only the last part of a path is used, so it never leaves its folder.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    clean = re.sub(r'[\x00-\x1f\x7f<>:"|?*\u202a-\u202e\u2066-\u2069]', "_", last).lstrip(" .").rstrip(" .")
    stem, dot, suffix = clean.rpartition(".")
    if not dot:
        stem, suffix = clean, ""
    if stem.casefold() in _RESERVED:
        stem = f"_{stem}"
    while len(f"{stem}{dot}{suffix}".encode()) > 180 and stem:
        stem = stem[:-1]
    return f"{stem}{dot}{suffix}" or "unnamed"


def free_name(name: str, taken: list[str]) -> str:
    """`name`, or `name (2)` and so on, before the suffix, when it is taken (compared without case)."""
    folded = {t.casefold() for t in taken}
    path, number = Path(name), 2
    free = name
    while free.casefold() in folded:
        free = f"{path.stem} ({number}){path.suffix}"
        number += 1
    return free
