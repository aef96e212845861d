"""SmilingWolf's WD taggers: v3 (any batch) and v2 (graphs fixed at one picture), a row each; `WD` is whatever
else keeps to their contract.

NHWC float32 BGR 0..255, padded white to a square, resized bicubic; probabilities in the order of selected_tags.csv.
"""

from __future__ import annotations

from dataclasses import replace
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


_V3 = ("swinv2", "vit", "convnext", "vit-large", "eva02-large")
_V2 = ("swinv2", "vit", "convnext", "convnextv2", "moat")
# where precision equals recall, as the model cards say; the default is that of the author's own demo
_BALANCE = {"wd-swinv2-tagger-v3": 0.2653, "wd-eva02-large-tagger-v3": 0.5296}


def _row(model: str, title: str) -> TaggerSpec:
    """One published model, known by its name in that of its folder: the files of all are alike."""
    return replace(
        WD,
        name=model,
        title=title,
        recognise=lambda folder, header: model in folder.name.lower() and _recognise(folder, header),
        presets={"precision = recall": {"general": _BALANCE[model]}} if model in _BALANCE else {},
        sources=(f"SmilingWolf/{model}",),
    )


WD = TaggerSpec(
    name="wd",
    title="WD tagger",
    pixels=Pixels(layout="NHWC", channels="BGR", fit="pad", size=448),
    output="probability",
    read_vocabulary=_vocabulary,
    recognise=_recognise,
    thresholds={"general": 0.35, "character": 0.85, "copyright": 0.5, "artist": 0.5, "meta": 0.5},
    licence="Apache-2.0",
    sources=("SmilingWolf",),
)
WD_MODELS = (
    *(_row(f"wd-{name}-tagger-v3", f"WD {name} v3") for name in _V3),
    *(_row(f"wd-v1-4-{name}-tagger-v2", f"WD {name} v2") for name in _V2),
)
