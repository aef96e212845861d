"""Which files are masks of pictures, by the names that trainers look for. It opens none.

    a-masklabel.png  beside a.jpg     OneTrainer
    masks/a.png      for a.jpg        a folder of masks: kohya (conditioning_data_dir), ai-toolkit and diffusion-pipe
                                      (mask_path)

A name alone makes no mask: the picture that it belongs to must be there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

Layout = Literal["beside", "folder"]
LABEL = "-masklabel.png"
FOLDER = "masks"


def masks_among(paths: Collection[str]) -> dict[str, str]:
    """{mask: path of its picture without the suffix} among paths relative to a dataset's pictures."""
    stems = {_stem(path) for path in paths}
    owners = {path: owner for path in paths if (owner := _owner(path))}
    return {path: owner for path, owner in owners.items() if owner in stems and owner != _stem(path)}


def mask_name(picture: str, layout: Layout) -> str:
    """Where the mask of a picture (its path) belongs."""
    return f"{_stem(picture)}{LABEL}" if layout == "beside" else f"{FOLDER}/{_stem(picture)}.png"


def _owner(path: str) -> str:
    if path.lower().endswith(LABEL):
        return path[: -len(LABEL)]
    return _stem(path.removeprefix(f"{FOLDER}/")) if path.startswith(f"{FOLDER}/") else ""


def _stem(path: str) -> str:
    return path.rpartition(".")[0] or path
