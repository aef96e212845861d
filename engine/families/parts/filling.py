"""From a part of a file to its module: the skeleton on meta, the weights read once, each in the type it is kept in."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.errors import FileError
from engine.families.parts.layers import (
    Storage,
    StoredEmbedding,
    can_keep,
    gguf_numbers,
    keep_stored,
    scaled,
    stored_layers,
)
from engine.families.parts.stored import StoredPart
from engine.weights.gguf import row_shape
from engine.weights.header import TensorInfo
from engine.weights.load import DTYPES, read_tensors
from engine.weights.quantised import GGUF_TYPES, SCALE, is_quantised


class MissingWeights(FileError):
    en = "{path}: the {part} lacks {count} weights, such as '{name}'. The file is incomplete or of another kind."
    zh = "{path}：{part} 缺少 {count} 个权重，例如“{name}”。文件不完整或类型不符。"


class WrongShape(FileError):
    en = "{path}: '{name}' has the shape {shape}, but the {part} needs {need}."
    zh = "{path}：“{name}”的形状为 {shape}，但 {part} 需要 {need}。"


def filled(part: StoredPart, dtype: torch.dtype, stored_as: torch.dtype | None = None) -> nn.Module:
    """The module in `dtype`, in which it runs; quantised matrices, and those that the part keeps, as the file has them.
    With `stored_as` all others have the values of that type, and layers keep theirs in it. What the file has beyond
    the module's weights is left alone.

    A 1x1 convolution in the file stands for a linear layer in the module (LDM's autoencoders), and the other way.
    Raises MissingWeights, WrongShape.
    """
    module: nn.Module = _build(part)
    files = {own: name for name in part.header.tensors if (own := part.own_name(name))}
    shapes = {own: tuple(tensor.shape) for own, tensor in module.state_dict().items()}
    _check(part, files, shapes)
    infos = {own: part.header.tensors[files[own]] for own in shapes}
    kept = {own: storage for own in shapes if (storage := _storage(module, part, own, infos[own], stored_as))}
    keep_stored(module, {own.removesuffix(".weight"): storage for own, storage in kept.items()})
    types = {files[own]: kept[own].dtype if own in kept else stored_as or dtype for own in shapes}
    scales = {own: files[scale] for own in shapes if (scale := own.removesuffix(".weight") + SCALE) in files}
    for own, scale in scales.items():
        _check_scale(part, scale, infos[own].shape)
    read = read_tensors(
        part.header, [*(files[own] for own in shapes), *scales.values()], lambda n: types.get(n, torch.float32)
    )
    state: dict[str, Tensor] = {}
    for own, shape in shapes.items():
        tensor = read[files[own]]
        if own not in kept:
            tensor = _unpacked(tensor, infos[own], dtype)
            tensor = scaled(tensor, read[scales[own]]).to(dtype) if own in scales else tensor
        state[own] = tensor if own in kept and kept[own].gguf else tensor.view(shape)
    module.load_state_dict(state, assign=True)
    for name, layer in stored_layers(module):
        if f"{name}.weight" in scales:
            layer.weight_scale = read[scales[f"{name}.weight"]]
        if isinstance(layer, StoredEmbedding):
            layer.compute = dtype
    return module


def _build(part: StoredPart) -> nn.Module:
    from engine.families.parts import clip, diffusion

    usual = {"denoiser": diffusion.build_unet, "vae": diffusion.build_vae, "text_encoder": clip.build}
    return (part.build or usual[part.role])(part.config)


def _check(part: StoredPart, files: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing = sorted(set(shapes) - set(files))
    if missing:
        raise MissingWeights(path=part.header.path, part=part.role, count=len(missing), name=missing[0])
    for own, need in shapes.items():
        shape = part.header.shape(files[own])
        if _squeezed(shape) != _squeezed(need):
            raise WrongShape(path=part.header.path, part=part.role, name=files[own], shape=shape, need=need)


def _check_scale(part: StoredPart, name: str, weight: tuple[int, ...]) -> None:
    """One number for the layer, for each row, or for each of equal blocks of a row."""
    shape, rows, columns = part.header.shape(name), weight[0], math.prod(weight[1:])
    count = math.prod(shape)
    if count == 1 or (shape[0] == rows and columns % (count // rows) == 0):
        return
    need = f"(1,), ({rows}, 1) or ({rows}, n, 1) where n divides {columns}"
    raise WrongShape(path=part.header.path, part=part.role, name=name, shape=shape, need=need)


def _storage(
    module: nn.Module, part: StoredPart, own: str, info: TensorInfo, stored_as: torch.dtype | None
) -> Storage | None:
    """How a tensor is kept; None where it is cast to the type the module runs in. Tables of a text encoder that is not
    kept as a whole are cast: prompts put vectors of textual inversions among their rows."""
    layer_name, _, leaf = own.rpartition(".")
    layer = module.get_submodule(layer_name)
    if leaf != "weight" or not can_keep(layer) or (isinstance(layer, nn.Embedding) and not part.keep_stored):
        return None
    if info.dtype in GGUF_TYPES:
        whole = row_shape(info.dtype, info.shape)[0] == info.shape[0]
        return None if isinstance(layer, nn.Embedding) and not whole else Storage(torch.uint8, info.dtype)
    if part.keep_stored or is_quantised(info):
        return Storage(DTYPES[info.dtype])
    return Storage(stored_as) if stored_as else None


def _unpacked(tensor: Tensor, info: TensorInfo, dtype: torch.dtype) -> Tensor:
    if info.dtype in GGUF_TYPES:
        return gguf_numbers(tensor.view(-1, tensor.shape[-1]), info.dtype, dtype)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
