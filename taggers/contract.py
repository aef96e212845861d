"""A tagger's files checked against each other before anything runs: input, output and tag list. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import FileError
from taggers.catalogue import InstalledTagger
from taggers.onnx_header import OnnxHeader, TensorInfo
from taggers.spec import TaggerSpec, Vocabulary


class WrongShape(FileError):
    en = "{name} does not fit the contract of a {kind}: {reason}. Is it another kind of model, or the wrong tag list?"
    zh = "{name} 不符合 {kind} 的接口：{reason}。可能是其他类型的模型，或标签列表不匹配。"


@dataclass(frozen=True)
class Contract:
    """What was checked about one model before anything runs: square size, fixed batch or None, and its words."""

    name: str
    spec: TaggerSpec
    words: Vocabulary
    size: int
    fixed_batch: int | None
    input: TensorInfo
    output: TensorInfo


def contract(tagger: InstalledTagger) -> Contract:
    """Read vocabulary and header and check one against the other. Raises WrongShape, WrongVocabulary, NotOnnx."""
    spec, header = tagger.spec(), tagger.header()
    words = spec.read_vocabulary(tagger.folder)
    entry, output = header.inputs[0], _output(tagger.name, spec, header)
    if len(header.inputs) > 1:
        reason = f"it takes {', '.join(one.name for one in header.inputs)}, not a picture alone"
        raise WrongShape(name=tagger.name, kind=spec.title, reason=reason)
    channel, height, width = (3, 1, 2) if spec.pixels.layout == "NHWC" else (1, 2, 3)
    shape = entry.shape
    if len(shape) != 4 or shape[channel] != 3:
        raise WrongShape(
            name=tagger.name, kind=spec.title, reason=f"input {entry.name} is {shape}, not {spec.pixels.layout}"
        )
    size = shape[height] if isinstance(shape[height], int) else spec.pixels.size
    if not isinstance(size, int) or (isinstance(shape[width], int) and shape[width] != size):
        raise WrongShape(name=tagger.name, kind=spec.title, reason=f"input {entry.name} is {shape}, not square")
    if entry.dtype not in ("float32", "float16"):
        raise WrongShape(name=tagger.name, kind=spec.title, reason=f"input {entry.name} is {entry.dtype}")
    if len(output.shape) != 2 or (output.shape[1] not in (len(words), "") and isinstance(output.shape[1], int)):
        reason = f"output {output.name} is {output.shape}, the tag list has {len(words)} tags"
        raise WrongShape(name=tagger.name, kind=spec.title, reason=reason)
    fixed = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
    return Contract(tagger.name, spec, words, size, fixed, entry, output)


def _output(name: str, spec: TaggerSpec, header: OnnxHeader) -> TensorInfo:
    if spec.output_name is None:
        return header.outputs[0]
    for output in header.outputs:
        if output.name == spec.output_name:
            return output
    found = ", ".join(output.name for output in header.outputs)
    raise WrongShape(name=name, kind=spec.title, reason=f"there is no output {spec.output_name}, only {found}")
