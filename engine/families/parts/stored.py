"""A part of a model as it lies in a file: where, with which config, and what its names are in the module. Torch-free;
torch is imported when a part is read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.errors import FileError
from engine.families.base import WeightDtype
from engine.families.parts.text_encoder import TextEncoder
from engine.weights import keymaps, openclip
from engine.weights.header import Header, TensorInfo
from engine.weights.quantised import GGUF_TYPES, SCALE, is_quantised, settled
from engine.weights.unet_config import diffusers_unet_config, unet_config

if TYPE_CHECKING:
    from engine.models.device import Device
    from engine.models.loaded import Loaded
    from engine.models.manager import ModelManager, ModelRef, Role


class BadMetadata(FileError):
    en = "{path}: its metadata '{key}' can't be used: {reason}."
    zh = "{path}：其元数据“{key}”无法使用：{reason}。"


GGUF_UNPACKING = 14  # bytes a number, while blocks become float32: measured, 13 of IQ4_XS


@dataclass(frozen=True)
class StoredPart:
    """`rename` turns a name behind the prefix into the module's name, None for what the module does not have.

    `build` makes the skeleton from the config. `wide`: what it computes does not fit into float16. `keep_stored`: all
    its weights stay in the type of the file, also where that is none of quantisation.
    """

    header: Header
    role: Role
    prefix: str
    config: Mapping[str, Any]
    rename: Callable[[str], str | None] = field(repr=False)
    build: Callable[[Mapping[str, Any]], Any] | None = field(default=None, repr=False)
    wide: bool = False
    keep_stored: bool = False
    place: str = ""  # where in the file it lies, if `prefix` does not say so

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        return self.header.under(self.prefix)

    def own_name(self, name: str) -> str | None:
        """The module's name of a tensor of the file."""
        return self.rename(name[len(self.prefix) :]) if name.startswith(self.prefix) else None

    def modules(self) -> dict[str, tuple[int, ...]]:
        """{module: shape of its weight} of everything that has one: what adapters may act on."""
        found: dict[str, tuple[int, ...]] = {}
        for name, info in self.tensors.items():
            own = self.rename(name) if name.endswith(".weight") else None
            if own:
                found[own.removesuffix(".weight")] = info.shape
        return found

    def register(self, manager: ModelManager, title: str, weight_dtype: WeightDtype = "default") -> ModelRef:
        """Make the part known to the manager. Quantised weights, and in an fp8 type all, are kept as they are and
        unpacked when their layer runs; so are those that would take more than half the memory of the machine if they
        lay in the type they run in there. Raises UnknownQuantisation."""
        from engine.families.parts.precision import compute_dtype, storage_dtype
        from engine.models.manager import ModelSpec

        part = replace(self, header=settled(self.header))
        tensors = part.tensors
        stored = next((info.dtype for info in tensors.values()), "F16")
        dtype = compute_dtype(manager.device, self.role, stored, wide=self.wide)
        whole = sum(math.prod(info.shape) for info in tensors.values()) * dtype.itemsize
        kept = replace(
            part, keep_stored=self.keep_stored or (manager.device.is_host and 2 * whole > manager.device.total())
        )
        to = storage_dtype(weight_dtype)
        own = {name: info for name, info in tensors.items() if part.rename(name)}
        nbytes = sum(kept.kept_bytes(name, info, dtype.itemsize, to and to.itemsize) for name, info in own.items())
        unpacking = max(
            (kept.unpacking_bytes(name, info, dtype.itemsize, stored_as=to is not None) for name, info in own.items()),
            default=0,
        )

        def load(device: Device) -> Loaded:
            from engine.families.parts import filling
            from engine.models.loaded import TorchModel

            return TorchModel(filling.filled(kept, dtype, to))

        how = dtype if weight_dtype == "default" else weight_dtype.removesuffix("_fast")
        more = "/stored" if kept.keep_stored else ""
        key = f"{self.header.digest}/{self.role}/{self.prefix}{self.place}/{how}{more}"
        types = {own_name: info.dtype for name, info in tensors.items() if (own_name := part.rename(name))}
        return manager.add(ModelSpec(key, self.role, title, nbytes, load, unpacking=unpacking, stored=types))

    def kept_bytes(self, name: str, info: TensorInfo, itemsize: int, stored_as: int | None) -> int:
        """What a tensor takes in memory, going by its name and type."""
        matrix = name.endswith(".weight") and len(info.shape) >= 2
        if matrix and (self.keep_stored or is_quantised(info)):
            return info.nbytes
        return math.prod(info.shape) * (stored_as if stored_as and matrix else itemsize)

    def unpacking_bytes(self, name: str, info: TensorInfo, itemsize: int, *, stored_as: bool) -> int:
        """What a layer takes to unpack the tensor, if it does. Of a table of words only rows are unpacked."""
        own = self.rename(name) or ""
        if not name.endswith(".weight") or len(info.shape) < 2 or "embedding" in own or own == "shared.weight":
            return 0
        if info.dtype in GGUF_TYPES:
            return math.prod(info.shape) * GGUF_UNPACKING
        scaled = 2 if name.removesuffix(".weight") + SCALE in self.tensors else 1
        kept = self.keep_stored or stored_as or is_quantised(info)
        return math.prod(info.shape) * itemsize * scaled if kept else 0


@contextmanager
def _named(header: Header) -> Iterator[None]:
    """Layouts are read from tensors; which file they are of is known here."""
    try:
        yield
    except keymaps.UnknownLayout as error:
        raise keymaps.UnknownLayout(**{**error.values, "file": str(header.path)}) from error


def stored_unet(header: Header, prefix: str, defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> StoredPart:
    """A UNet under `prefix`, in LDM's or diffusers' names. `defaults` says what its sizes don't; the metadata
    `easel.unet` wins over them."""
    tensors = header.under(prefix)
    ldm = "input_blocks.0.0.weight" in tensors
    with _named(header):
        sizes = unet_config(tensors) if ldm else diffusers_unet_config(tensors)
    config = {**sizes, **defaults(sizes), **json_metadata(header, "easel.unet")}
    rename = keymaps.unet_map(config).to_diffusers if ldm else same_name
    return StoredPart(header, "denoiser", prefix, config, rename)


def stored_vae(header: Header, prefix: str, defaults: Mapping[str, Any]) -> StoredPart:
    """An autoencoder under `prefix`, in LDM's or diffusers' names. The metadata `easel.vae` wins over `defaults`."""
    tensors = header.under(prefix)
    ldm = any(name.startswith("encoder.down.") for name in tensors)
    with _named(header):
        sizes = keymaps.vae_config(tensors) if ldm else keymaps.diffusers_vae_config(tensors)
    config = {**sizes, **defaults, **json_metadata(header, "easel.vae")}
    rename = keymaps.vae_map(config).to_diffusers if ldm else keymaps.modern_vae_name
    return StoredPart(header, "vae", prefix, config, rename)


def stored_clip(header: Header, prefix: str, encoder: TextEncoder, special: Mapping[str, int]) -> StoredPart:
    """A CLIP text encoder under `prefix`. `special` are the ids of its tokenizer's start and end."""
    if prefix + openclip.FIRST in header:
        header, prefix = openclip.in_transformers_names(header, prefix), ""
    tensors = header.under(prefix)
    outer = "" if "text_model.embeddings.token_embedding.weight" in tensors else "text_model."
    with _named(header):
        sizes = keymaps.clip_text_config({outer + name: info for name, info in tensors.items()})
    projection = next((n for n in ("text_projection.weight", "text_projection") if n in tensors), "")
    config = {**sizes, **encoder.config, **json_metadata(header, f"easel.{encoder.part}"), **special}
    if encoder.projected and projection:
        linear = projection.endswith(".weight")
        config |= {"projection": "linear" if linear else "matrix"}
        config |= {"projection_dim": tensors[projection].shape[0 if linear else 1]}
    to_diffusers = keymaps.clip_text_map().to_diffusers

    def rename(name: str) -> str | None:
        return name if encoder.projected and name == projection else to_diffusers(outer + name)

    return StoredPart(header, "text_encoder", prefix, config, rename)


MODEL_KEYS = ("easel.unet", "easel.transformer", "easel.defaults", "easel.latent_rgb", "modelspec.resolution")
TEXT_KEYS = (
    "easel.text_encoder",
    "easel.text_encoder_2",
    "easel.text_encoder_3",
    "easel.tokenizer",
    "easel.t5_tokenizer",
)


def about(header: Header, *keys: str) -> dict[str, str]:
    """Those of its metadata that a file saved again has to repeat."""
    return {key: header.metadata[key] for key in keys if key in header.metadata}


def json_metadata(header: Header, key: str) -> dict[str, Any]:
    """An object from the metadata, {} where there is none. A folder's config.json brings fields about itself, which
    begin with "_": they are left out. Raises BadMetadata."""
    try:
        data = json.loads(header.metadata.get(key, "{}"))
    except ValueError as error:
        raise BadMetadata(path=header.path, key=key, reason=str(error)) from error
    if not isinstance(data, dict):
        raise BadMetadata(path=header.path, key=key, reason="it is not a JSON object")
    return {name: value for name, value in data.items() if not name.startswith("_")}


def same_name(name: str) -> str:
    """`StoredPart.rename` where the file has the module's names."""
    return name
