"""cl_tagger 1.00 to 1.02: 42,163 tags with quality and model among the categories.

NCHW BGR scaled to -1..1, padded white to a square and resized to 448; logits; the words in tag_mapping.json.
"""

from __future__ import annotations

from pathlib import Path

from taggers.onnx_header import OnnxHeader
from taggers.spec import Pixels, TaggerSpec, Vocabulary, indexed_vocabulary, read_json

_KIND = "cl_tagger"


def _vocabulary(folder: Path) -> Vocabulary:
    path = folder / "tag_mapping.json"
    return indexed_vocabulary(path, _KIND, read_json(path, _KIND))


def _recognise(folder: Path, header: OnnxHeader) -> bool:
    shape = header.inputs[0].shape
    return (folder / "tag_mapping.json").is_file() and len(shape) == 4 and shape[1] == 3


CL_TAGGER = TaggerSpec(
    name="cl_tagger",
    title=_KIND,
    pixels=Pixels(layout="NCHW", channels="BGR", fit="pad", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=448),
    output="logit",
    read_vocabulary=_vocabulary,
    recognise=_recognise,
    thresholds={name: 0.55 for name in ("general", "character", "copyright", "artist", "meta", "quality", "model")},
    licence="Apache-2.0",
    sources=("cella110n/cl_tagger",),
)
