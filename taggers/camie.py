"""Camie tagger v2: 70,527 tags in seven categories. Its licence is GPL-3.0: the user downloads it, we never ship it.

NCHW RGB with ImageNet's mean and deviation, scaled to 512 (Lanczos) and padded with that mean; logits in the output
`refined_predictions`; the words in a metadata json.
"""

from __future__ import annotations

from pathlib import Path

from taggers.onnx_header import OnnxHeader
from taggers.spec import Pixels, TaggerSpec, Vocabulary, indexed_vocabulary, read_json

_KIND = "Camie tagger"


def _metadata(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*metadata*.json"))), None)


def _vocabulary(folder: Path) -> Vocabulary:
    path = _metadata(folder) or folder / "metadata.json"
    data = read_json(path, _KIND)
    mapping = data.get("dataset_info", {}).get("tag_mapping", data)
    return indexed_vocabulary(path, _KIND, mapping)


def _recognise(folder: Path, header: OnnxHeader) -> bool:
    return _metadata(folder) is not None and any(output.name == "refined_predictions" for output in header.outputs)


CAMIE = TaggerSpec(
    name="camie-v2",
    title=_KIND,
    pixels=Pixels(
        layout="NCHW",
        channels="RGB",
        fit="scale and pad",
        pad_colour=(124, 116, 104),
        resample="lanczos",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        size=512,
    ),
    output="logit",
    output_name="refined_predictions",
    read_vocabulary=_vocabulary,
    recognise=_recognise,
    thresholds={name: 0.61 for name in ("general", "character", "copyright", "artist", "meta", "year")},
    licence="GPL-3.0",
    presets={"macro F1": {name: 0.492 for name in ("general", "character", "copyright", "artist", "meta", "year")}},
    sources=("Camais03/camie-tagger-v2",),
)
