"""Reads pictures of the demo world with the bundled tagger: shape, colour and ground, each the likeliest."""

from __future__ import annotations

import csv
from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from engine.workspace import BUNDLED
from studio.demo.spec import COLOURS, GROUNDS, SHAPES, Spec

FOLDER = BUNDLED / "tagger"


def is_as_described(image: Image.Image, spec: Spec) -> bool:
    """All three right: shape, colour and ground."""
    scores = _scores(image)

    def likeliest(names: Any) -> str:
        return max(names, key=scores.__getitem__)

    ground = likeliest([f"{name}_background" for name in GROUNDS])
    return (likeliest(SHAPES), likeliest(COLOURS), ground) == (spec.shape, spec.colour, f"{spec.ground}_background")


def _scores(image: Image.Image) -> dict[str, float]:
    session, names = _tagger()
    side = session.get_inputs()[0].shape[1]
    pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), np.float32)
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels[None, :, :, ::-1]})
    return dict(zip(names, np.asarray(found)[0].tolist(), strict=True))


@lru_cache(maxsize=1)
def _tagger() -> tuple[onnxruntime.InferenceSession, list[str]]:
    with (FOLDER / "selected_tags.csv").open(encoding="utf-8") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    return onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"]), names
