"""The one engine for ONNX taggers: a session made once under the device layer, and pictures in batches through it.

It runs in the worker. What a model takes and gives comes from its TaggerSpec, the names from the graph.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from engine.errors import FileError
from engine.models.device import Device
from engine.models.loaded import OpaqueModel
from engine.models.manager import ModelSpec
from taggers.catalogue import InstalledTagger
from taggers.contract import Contract, WrongShape
from taggers.folder import first_line
from taggers.pixels import batch
from taggers.reader import ScoresNotNumbers

MANY_TAGS = 64  # from so many on, a tag list whose every probability is over a half is no reading of a picture


class WrongOutputKind(FileError):
    en = (
        "{name} gave scores from {least:g} to {most:g} for {picture}, but a {kind} gives {wanted}. "
        'If it is a conversion of another kind, write output = "{other}" into a tagger.toml beside it.'
    )
    zh = (
        "{name} 对 {picture} 给出的分数在 {least:g} 到 {most:g} 之间，而 {kind} 应给出 {wanted}。"
        '如果它是另一种转换版本，请在旁边的 tagger.toml 中写入 output = "{other}"。'
    )


class SessionFailed(FileError):
    en = "onnxruntime can't open {name}: {reason}"
    zh = "onnxruntime 无法打开 {name}：{reason}"


class RunFailed(FileError):
    en = "onnxruntime can't run {name} on {pictures} pictures of {shape}: {reason}. Is it another kind of model?"
    zh = "onnxruntime 无法在 {pictures} 张 {shape} 的图片上运行 {name}：{reason}。可能是其他类型的模型。"


@dataclass(frozen=True)
class Session:
    """An onnxruntime session and where it really runs, which is not always where it was asked to."""

    run: ort.InferenceSession
    provider: str


def model_spec(tagger: InstalledTagger, threads: int = 0) -> ModelSpec:
    """The tagger for the model manager: `lease` gives a Session."""
    stat = tagger.file.stat()
    nbytes = tagger.nbytes
    return ModelSpec(
        key=f"tagger:{tagger.file}:{stat.st_size}:{stat.st_mtime_ns}",
        role="tagger",
        title=tagger.name,
        nbytes=nbytes,
        load=lambda device: OpaqueModel(open_session(tagger.file, device, threads), nbytes),
        loads_there=True,
    )


def open_session(file: Path, device: Device, threads: int = 0) -> Session:
    """A session on the device. Falls to the CPU only where onnxruntime has no provider for it; `provider` says so."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = (
        threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    )
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoders need these cores meanwhile
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(file), options, providers=_providers(device))
    except Exception as error:  # onnxruntime's own exceptions share no base but this
        raise SessionFailed(name=file.name, reason=str(error).splitlines()[0]) from error
    return Session(session, session.get_providers()[0].removesuffix("ExecutionProvider"))


def scores(
    session: Session, model: Contract, pictures: Sequence[np.ndarray], into: np.ndarray | None = None
) -> np.ndarray:
    """Probabilities (n, tags) of pictures as `pixels.load` gives them. A fixed batch is fed in its portions; `into` is
    memory to use again (see `batch`)."""
    values = batch(pictures, model.spec.pixels, into)
    if model.input.dtype == "float16":
        values = values.astype(np.float16)
    portion = model.fixed_batch or len(values)
    found = [_run(session, model, values[i : i + portion], portion) for i in range(0, len(values), portion)]
    result = np.concatenate(found)[: len(pictures)].astype(np.float32)
    # infinity is as broken as NaN, and a sigmoid would hide it
    result[~np.isfinite(result)] = np.nan
    if result.shape != (len(pictures), len(model.words)):
        reason = f"it gave {result.shape[1:]} scores for {len(model.words)} tags"
        raise WrongShape(name=model.name, kind=model.spec.title, reason=reason)
    return _sigmoid(result) if model.spec.output == "logit" else result


def refuse_broken(model: Contract, found: np.ndarray, names: Sequence[str]) -> None:
    """Raises ScoresNotNumbers or WrongOutputKind, naming the picture, where probabilities (n, tags) can't be right."""
    broken = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(broken):
        raise ScoresNotNumbers(name=model.name, picture=names[int(broken[0])])
    least, most = found.min(axis=1), found.max(axis=1)
    if model.spec.output == "probability":
        wrong = np.flatnonzero((least < -1e-3) | (most > 1 + 1e-3))
    else:  # a sigmoid of probabilities is never under a half, and of so many tags most are not there
        wrong = np.flatnonzero(least >= 0.5) if found.shape[1] >= MANY_TAGS else np.zeros(0, int)
    if len(wrong):
        place = int(wrong[0])
        wanted, other = ("probabilities", "logit") if model.spec.output == "probability" else ("logits", "probability")
        raise WrongOutputKind(
            name=model.name,
            kind=model.spec.title,
            picture=names[place],
            least=float(least[place]),
            most=float(most[place]),
            wanted=wanted,
            other=other,
        )


def working_bytes(model: Contract, pictures: int) -> int:
    """A guess at what a run needs beside the weights: activations of the widest layers, in inputs."""
    return 12 * 4 * 3 * model.size * model.size * (model.fixed_batch or pictures)


def version_of(file: Path) -> str:
    """The model's identity: a hash of its bytes, so that a renamed file is the same model and a new one is not.

    Weights in a file of their own (model.onnx.data, model.onnx_data) count: two tunings may have the same graph.
    """
    digest = hashlib.blake2b(digest_size=12)
    apart = sorted(p for p in file.parent.iterdir() if p.name.startswith((f"{file.name}.data", f"{file.name}_data")))
    for path in (file, *apart):
        with open(path, "rb") as handle:
            while block := handle.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _run(session: Session, model: Contract, values: np.ndarray, portion: int) -> np.ndarray:
    missing = portion - len(values)
    if missing:
        values = np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
    try:
        output: Any = session.run.run([model.output.name], {model.input.name: values})[0]
    except Exception as error:  # onnxruntime's own exceptions share no base but this
        if "allocate" in str(error) or "out of memory" in str(error).lower():
            raise MemoryError(str(error)) from error
        shape = " x ".join(map(str, values.shape[1:]))
        raise RunFailed(name=model.name, pictures=len(values), shape=shape, reason=first_line(error)) from error
    return output[: portion - missing]


def _providers(device: Device) -> list[Any]:
    available = ort.get_available_providers()
    if device.kind == "cuda" and "CUDAExecutionProvider" in available:
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds torch's CUDA libraries; without them the session silently runs on the CPU
        options = {
            "device_id": device.torch.index or 0,
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logits.clip(-60, 60)))
