"""What is measured once for each picture: a perceptual hash, its mirror's, and sharpness.

The hash (pHash, 63 bits of a 32 -> 8 cosine transform) stays within 6 bits for re-saved and rescaled copies. Sharpness,
the variance of the Laplacian, says something only relative to the other pictures of a set.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from engine.dataset.decoding import open_rgb
from engine.dataset.library import Dataset
from engine.dataset.records import Picture
from engine.errors import PictureError
from engine.progress import ProgressSink, silent

_SIDE = 32
_LOOK = 512  # side that sharpness is measured at
_BATCH = 64


def measure(dataset: Dataset, progress: ProgressSink = silent, *, threads: int = 4) -> int:
    """Measure the pictures that were not yet. Returns how many were; those that can't be decoded are marked."""
    known = dataset.store.measures()
    left = [picture for picture in dataset.store.pictures() if picture.id not in known]
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(left), _BATCH):
            part = left[start : start + _BATCH]
            progress(start, len(left), part[0].name, phase="measure")
            found = dict(pool.map(lambda picture: (picture.id, _measured(dataset, picture)), part))
            dataset.store.set_measures({id: values for id, values in found.items() if values})
            done += sum(map(bool, found.values()))
    progress(len(left), len(left), phase="measure")
    return done


def phash(image: Image.Image) -> int:
    """63 bits: the signs of the lowest frequencies around their median."""
    small = image.convert("L")
    if small.size != (_SIDE, _SIDE):
        small = small.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small, np.float64)
    rows = _cosines()
    low = (rows @ grey @ rows.T)[:8, :8].ravel()[1:]
    return int("".join("1" if bit else "0" for bit in low > np.median(low)), 2)


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian at a side of at most 512."""
    grey = image.convert("L")
    grey.thumbnail((_LOOK, _LOOK))
    a = np.asarray(grey, np.float32)
    if min(a.shape) < 3:
        return 0.0
    edges = a[:-2, 1:-1] + a[2:, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:] - 4 * a[1:-1, 1:-1]
    return float(edges.var())


def _measured(dataset: Dataset, picture: Picture) -> dict[str, Any]:
    try:
        image = open_rgb(dataset.path(picture.path), at_least=_LOOK)
    except PictureError as error:
        dataset.store.set_problem(picture.path, error.to_json())
        return {}
    grey = image.convert("L")
    grey.thumbnail((_LOOK, _LOOK))
    small = grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    mirrored = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return {"phash": phash(small), "mirrored": phash(mirrored), "sharpness": round(sharpness(grey), 3)}


def _cosines() -> np.ndarray:
    """The matrix of the discrete cosine transform, (32, 32)."""
    k = np.arange(_SIDE)
    rows = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / (2 * _SIDE))
    rows[0] /= np.sqrt(2)
    return rows
