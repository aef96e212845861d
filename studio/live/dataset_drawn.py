"""What people do to pictures and captions beside tags: crops, masks, older versions, votes. One function an action."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from engine.dataset.export import SidecarReport
from engine.dataset.library import Dataset
from engine.dataset.mask_files import export_masks, import_masks
from engine.dataset.masks import mask_of_regions, read_mask, set_crop, set_mask, set_masks
from engine.dataset.records import Picture
from engine.dataset.regions import Region, regions_of, remove_regions
from engine.dataset.view import View
from engine.errors import InputError, NotFound
from engine.workspace import Workspace


class NotDrawn(InputError):
    en = "The mask that was sent is no picture ({reason})."
    zh = "发送的蒙版不是图片（{reason}）。"


class NoRegions(InputError):
    en = "No model has marked anything in these pictures. Run one that finds things, such as Florence-2 with grounding."
    zh = "还没有模型在这些图片中标出区域。请先运行能定位物体的模型，例如 Florence-2 的 grounding。"


def crop(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    picture = dataset.store.picture(int(body["picture"]))
    return {"changed": set_crop(dataset, picture, body.get("box"), f"▣ {picture.name}") is not None}


def mask(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """`png`: a drawing in base64, empty to take the mask away."""
    picture = dataset.store.picture(int(body["picture"]))
    drawn = None
    if body.get("png"):
        try:
            drawn = read_mask(base64.b64decode(str(body["png"]).rpartition(",")[2], validate=True), picture)
        except binascii.Error as error:
            raise NotDrawn(reason=error) from error
    return {"changed": set_mask(dataset, picture, drawn, f"◩ {picture.name}") is not None}


def masks_of_regions(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """Masks of what models found in `pictures`: of the regions with a label among `labels`, or of all."""
    wanted = {str(label).casefold() for label in body.get("labels") or ()}
    grow = min(0.5, max(0.0, float(body.get("grow") or 0.0)))
    made = {}
    for picture in dataset.store.pictures(int(i) for i in body.get("pictures") or ()):
        found = [
            region
            for regions in regions_of(dataset.store, picture.id).values()
            for region in regions
            if not wanted or region.label.casefold() in wanted
        ]
        if found:
            made[picture.id] = mask_of_regions(found, picture, grow)
    if not made:
        raise NoRegions()
    return {"changed": set_masks(dataset, made, f"◩ {len(made)} ▢") is not None, "pictures": len(made)}


def remove(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """Regions of `pictures` taken away: all, those of a `source`, or one (`region`: its label, shape and points)."""
    pictures = dataset.store.pictures(int(i) for i in body.get("pictures") or ())
    source = body.get("source")
    tool = "" if source is None else {s.id: s.tool for s in view.sources()}[int(source)]
    one = body.get("region")
    only = None if one is None else Region(str(one["label"]), one["shape"], tuple(map(float, one["points"])))
    what = (only.label or "·") if only else tool.partition(":")[2] or tool
    where = pictures[0].name if len(pictures) == 1 else f"{len(pictures)} ▢"
    event = remove_regions(
        dataset.store,
        [picture.id for picture in pictures],
        f"− ⬚ {what} {where}".replace("  ", " "),
        source=None if source is None else int(source),
        only=only,
    )
    return {"changed": event is not None}


def write_masks(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """Masks as files: `layout` is "beside" the pictures (-masklabel.png) or in a "folder" (masks/)."""
    layout = "folder" if body.get("layout") == "folder" else "beside"
    return report_json(export_masks(dataset, layout=layout, overwrite=bool(body.get("overwrite"))))


def read_masks(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """The masks that lie beside the pictures or in the folder of masks."""
    return report_json(import_masks(dataset))


def report_json(report: SidecarReport) -> dict[str, Any]:
    problems = [{"path": path, **problem} for path, problem in report.problems.items()]
    return {"done": report.done, "unchanged": report.unchanged, "problems": problems}


def restore(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """An older version of one caption."""
    picture = dataset.store.picture(int(body["picture"]))
    version = next((v for v in dataset.store.caption_versions(picture.id) if v.id == body.get("version")), None)
    if version is None:
        remedy = {"remedy": "Look at the picture again.", "remedy_zh": "请重新打开该图片。"}
        raise NotFound(what="version of the caption", what_zh="描述版本", name=str(body.get("version")), **remedy)
    return {"changed": dataset.store.restore_caption(version, f"↺ {picture.name}") is not None}


def restore_all(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """All captions as they were at a unix `time`, or the newest that a `source` wrote."""
    if body.get("source"):
        (source,) = (s for s in view.sources() if s.id == body["source"])
        pictures = [int(i) for i in body["pictures"]] if body.get("pictures") else None
        return {"changed": dataset.store.adopt_captions(source.id, f"↺ {source.tool}", pictures) is not None}
    return {"changed": dataset.store.restore_captions(float(body["time"]), "RestoreAll") is not None}


def vote(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """Which of two captions is better: its id, 0 for neither, null to take the vote back."""
    picture = _described(dataset, int(body["left"]))
    one, other, better = int(body["left"]), int(body["right"]), body.get("better")
    return {"changed": dataset.store.vote(one, other, better, f"♥ {picture.name}") is not None}


def travel(workspace: Workspace, dataset: Dataset, view: View, body: dict[str, Any]) -> dict[str, Any]:
    """Back or forth in the log of edits, until the edit `seq` is the last that counts."""
    step = dataset.store.travel(int(body["seq"]))
    return {"event": step.title if step else ""}


def _described(dataset: Dataset, caption: int) -> Picture:
    found = dataset.store.rows("SELECT picture FROM captions WHERE id=?", caption)
    return dataset.store.picture(found[0][0] if found else 0)
