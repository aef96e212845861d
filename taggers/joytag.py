"""JoyTag: 5,000 Danbooru tags that work on photos as well. One category, one threshold.

NCHW RGB with CLIP's mean and deviation, padded white to a square and resized to 448; logits; one word a line in
top_tags.txt.
"""

from __future__ import annotations

from pathlib import Path

from engine.dataset.records import GENERAL
from taggers.onnx_header import OnnxHeader
from taggers.spec import Pixels, TaggerSpec, Vocabulary, WrongVocabulary, read_text, vocabulary

_KIND = "JoyTag"


def _vocabulary(folder: Path) -> Vocabulary:
    path = folder / "top_tags.txt"
    names = [line.strip() for line in read_text(path, _KIND).splitlines() if line.strip()]
    if not names:
        raise WrongVocabulary(path=path.name, kind=_KIND, reason="it is empty")
    return vocabulary((name, GENERAL) for name in names)


def _recognise(folder: Path, header: OnnxHeader) -> bool:
    shape = header.inputs[0].shape
    return (folder / "top_tags.txt").is_file() and len(shape) == 4 and shape[1] == 3


JOYTAG = TaggerSpec(
    name="joytag",
    title=_KIND,
    pixels=Pixels(
        layout="NCHW",
        channels="RGB",
        fit="pad",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        size=448,
    ),
    output="logit",
    read_vocabulary=_vocabulary,
    recognise=_recognise,
    thresholds={GENERAL: 0.4},
    licence="Apache-2.0",
    sources=("fancyfeast/joytag",),
)
