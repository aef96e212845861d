"""PixAI's taggers as ONNX: v0.9 (448, squashed) and v1.0 (1008, scaled and padded with black).

v0.9 in deepghs' conversion gives `output` (probabilities), `logits` and `embedding`. Conversions of v1.0 give logits;
one with another tag list or output is described by a tagger.toml beside it (see described.py).
"""

from __future__ import annotations

from pathlib import Path

from taggers.onnx_header import OnnxHeader
from taggers.spec import Pixels, TaggerSpec, Vocabulary, read_csv_vocabulary

_CATEGORIES = {
    "0": "general",
    "1": "artist",
    "2": "style",
    "3": "copyright",
    "4": "character",
    "5": "meta",
    "9": "rating",
    **{name: name for name in ("general", "artist", "style", "copyright", "character", "meta", "rating")},
}
_HALF = (0.5, 0.5, 0.5)


def _vocabulary(folder: Path) -> Vocabulary:
    return read_csv_vocabulary(folder / "selected_tags.csv", _CATEGORIES, "PixAI tagger")


def _is_v09(folder: Path, header: OnnxHeader) -> bool:
    outputs = {output.name for output in header.outputs}
    return _first_channels(folder, header) and {"output", "embedding"} <= outputs


def _is_v10(folder: Path, header: OnnxHeader) -> bool:
    return _first_channels(folder, header) and header.inputs[0].shape[2] == 1008


def _first_channels(folder: Path, header: OnnxHeader) -> bool:
    shape = header.inputs[0].shape
    return (folder / "selected_tags.csv").is_file() and len(shape) == 4 and shape[1] == 3


PIXAI_V09 = TaggerSpec(
    name="pixai-v0.9",
    title="PixAI tagger v0.9",
    pixels=Pixels(layout="NCHW", channels="RGB", fit="squash", resample="bilinear", mean=_HALF, std=_HALF, size=448),
    output="probability",
    output_name="output",
    read_vocabulary=_vocabulary,
    recognise=_is_v09,
    thresholds={"general": 0.30, "character": 0.75},
    licence="Apache-2.0",
    gated=True,
    presets={"endpoint": {"general": 0.30, "character": 0.85}},
    sources=("deepghs/pixai-tagger-v0.9-onnx", "pixai-labs/pixai-tagger-v0.9"),
)
PIXAI_V10 = TaggerSpec(
    name="pixai-v1.0",
    title="PixAI tagger v1.0",
    pixels=Pixels(
        layout="NCHW",
        channels="RGB",
        fit="scale and pad",
        pad_colour=(0, 0, 0),
        resample="bilinear",
        mean=_HALF,
        std=_HALF,
        size=1008,
    ),
    output="logit",
    read_vocabulary=_vocabulary,
    recognise=_is_v10,
    thresholds={
        "general": 0.17,
        "character": 0.27,
        "style": 0.15,
        "artist": 0.15,
        "copyright": 0.24,
        "meta": 0.17,
        "rating": 0.41,
    },
    licence="Apache-2.0",
    sources=("pixai-labs/pixai-tagger-v1.0",),
)
