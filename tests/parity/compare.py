"""How far a latent or a picture is from a recorded one, and how far it may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

LATENT = 2e-5  # relative L2: the reference's own two attention kernels differ by 2e-6
LEVELS = 2  # of 255


def difference(recorded: Path, made: Path) -> str:
    """What is wrong with `made`, in words; "" when it is as good as equal."""
    if recorded.suffix == ".png":
        return _pictures(recorded, made)
    return _latents(recorded, made)


def _latents(recorded: Path, made: Path) -> str:
    want = load_file(recorded)["latent_tensor"].astype(np.float64)
    have = load_file(made)["latent_tensor"].astype(np.float64)
    if want.shape != have.shape:
        return f"{recorded.name}: shape {have.shape}, recorded {want.shape}"
    error = float(np.linalg.norm(have - want) / np.linalg.norm(want))
    return "" if error <= LATENT else f"{recorded.name}: relative L2 {error:.3g}"


def _pictures(recorded: Path, made: Path) -> str:
    want, have = (np.asarray(Image.open(path)).astype(int) for path in (recorded, made))
    if want.shape != have.shape:
        return f"{recorded.name}: shape {have.shape}, recorded {want.shape}"
    levels = int(np.abs(want - have).max())
    return "" if levels <= LEVELS else f"{recorded.name}: {levels} levels"
