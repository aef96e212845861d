"""Masks as files beside the pictures, as trainers read them: written from the dataset, and taken in.

A file is as large as its picture, grey, white where a training learns. One that somebody else wrote or changed is not
overwritten unless told so; one of ours whose mask was taken away is deleted.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from engine.dataset.decoding import NotAPicture, decode_rgb
from engine.dataset.export import SidecarReport, listed
from engine.dataset.library import Dataset, safe_name
from engine.dataset.mask_names import LABEL, Layout, mask_name, masks_among
from engine.dataset.masks import mask_path, open_mask, set_masks
from engine.dataset.pictures import content_hash, files_in
from engine.dataset.records import Picture
from engine.errors import InputError
from engine.progress import ProgressSink, silent
from engine.workspace import inside, replacing

BLACK = (0, 0, 0)
_WRITTEN = "mask_files"  # {path: hash of what we wrote there}, in the dataset's store


class MaskFileChanged(InputError):
    en = "{mask} was not written by Easel, or was changed since, and was left as it is. Read it in, or overwrite it."
    zh = "{mask} 并非由 Easel 写入，或写入后被修改过，已保持原样。请先导入，或选择覆盖。"


class SharedMask(InputError):
    en = "{first} and {second} would share the mask file {mask}. Rename one of the pictures."
    zh = "{first} 与 {second} 会共用蒙版文件 {mask}。请重命名其中一张图片。"


def export_masks(
    dataset: Dataset, *, layout: Layout, overwrite: bool = False, progress: ProgressSink = silent
) -> SidecarReport:
    """Write the mask of every picture that has one, beside each of its files or into the folder of masks."""
    dataset.there()
    report, drawn = SidecarReport(), dataset.store.marks("mask")
    written: dict[str, str] = dataset.store.meta(_WRITTEN, {})
    owners: dict[str, str] = {}
    pictures = dataset.store.pictures()
    for number, picture in enumerate(pictures):
        if number % 100 == 0:
            progress(number, len(pictures), picture.name, phase="export")
        for path in picture.paths:
            name = mask_name(path, layout)
            with listed(report, name):
                mask = drawn.get(picture.id)
                if mask is None and name not in written:
                    continue
                if (first := owners.setdefault(name, path)) != path:
                    raise SharedMask(first=first, second=path, mask=name)
                data = None if mask is None else mask_png(dataset, picture, mask)
                _write(dataset, name, data, written, overwrite, report)
    dataset.store.set_meta(_WRITTEN, written)
    progress(len(pictures), len(pictures), phase="export")
    return report


def import_masks(dataset: Dataset, pictures: Iterable[int] | None = None) -> SidecarReport:
    """Take in the masks that lie beside the pictures, or those of `pictures`, as one edit."""
    report, masks = SidecarReport(), {}
    by_stem: dict[str, Picture] = {}
    for picture in dataset.store.pictures():
        by_stem.update({path.rpartition(".")[0]: picture for path in picture.paths})
    wanted = None if pictures is None else set(pictures)
    for path, stem in masks_among(dict(files_in(dataset.root))).items():
        picture = by_stem.get(stem)
        if picture is None or (wanted is not None and picture.id not in wanted):
            continue
        with listed(report, path):
            masks[picture.id] = decode_rgb(_bytes(inside(dataset.root, path)), path, ground=BLACK).convert("L")
            report.done += 1
    set_masks(dataset, masks, f"◩ {len(masks)} ▢")
    return report


def add_mask_file(dataset: Dataset, name: str, data: bytes) -> str | None:
    """Keep a file that was sent, where its name makes it the mask of a picture that is there, and take it in.

    Returns its name, or None where it is no mask. Raises PictureError where it is damaged.
    """
    clean = safe_name(name)
    if not masks_among([clean, *dataset.store.files()]).get(clean):
        return None
    decode_rgb(data, clean)
    with replacing(inside(dataset.root, clean)) as file:
        file.write(data)
    stem = clean[: -len(LABEL)]
    import_masks(dataset, [p.id for p in dataset.store.pictures() if stem in (s.rpartition(".")[0] for s in p.paths)])
    return clean


def mask_png(dataset: Dataset, picture: Picture, name: str) -> bytes:
    """The mask `name` (its place among the marks) as a PNG of the picture's size."""
    out = io.BytesIO()
    open_mask(mask_path(dataset, name), (picture.width, picture.height)).save(out, "PNG")
    return out.getvalue()


def _write(
    dataset: Dataset, name: str, data: bytes | None, written: dict[str, str], overwrite: bool, report: SidecarReport
) -> None:
    target = inside(dataset.root, name)
    before = target.read_bytes() if target.is_file() else None
    if before == data:
        report.unchanged += 1
    elif before is not None and not overwrite and content_hash(before) != written.get(name):
        raise MaskFileChanged(mask=name)
    elif data is None:
        target.unlink()
        report.done += 1
    else:
        with replacing(target) as file:
            file.write(data)
        report.done += 1
    written.pop(name, None)
    if data is not None:
        written[name] = content_hash(data)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotAPicture(name=path.name, reason=error.strerror) from error
