"""SmilingWolf's WD taggers: v3 (any batch) and v2 (graphs fixed at one picture). Also what keeps to their contract.

NHWC float32 BGR 0..255, padded white to a square, resized bicubic; probabilities in the order of selected_tags.csv.
"""

from __future__ import annotations

from pathlib import Path

from taggers.onnx_header import OnnxHeader
from taggers.spec import Pixels, TaggerSpec, Vocabulary, read_csv_vocabulary

# Danbooru's numbers; 9 is the rating
CATEGORIES = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta", "9": "rating"}


def _vocabulary(folder: Path) -> Vocabulary:
    return read_csv_vocabulary(folder / "selected_tags.csv", CATEGORIES, "WD tagger")


def _recognise(folder: Path, header: OnnxHeader) -> bool:
    shape = header.inputs[0].shape
    return (folder / "selected_tags.csv").is_file() and len(shape) == 4 and shape[3] == 3


WD = TaggerSpec(
    name="wd",
    title="WD tagger",
    pixels=Pixels(layout="NHWC", channels="BGR", fit="pad"),
    output="probability",
    read_vocabulary=_vocabulary,
    recognise=_recognise,
    thresholds={"general": 0.35, "character": 0.85, "copyright": 0.5, "artist": 0.5, "meta": 0.5},
    licence="Apache-2.0",
    sources=(
        *(f"SmilingWolf/wd-{name}-tagger-v3" for name in ("swinv2", "vit", "convnext", "vit-large", "eva02-large")),
        *(f"SmilingWolf/wd-v1-4-{name}-tagger-v2" for name in ("swinv2", "vit", "convnext", "convnextv2", "moat")),
    ),
)
