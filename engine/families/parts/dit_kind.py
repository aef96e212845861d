"""What tells one family of diffusion transformers from another, and where its parts lie in a file. Torch-free.

Parts of a checkpoint: the transformer under `model.diffusion_model.` in its maker's names or under `transformer.` in
diffusers'; text encoders under `text_encoders.<name>.transformer.` or, in a folder of diffusers, `text_encoder_<n>.`;
the VAE under `first_stage_model.` or `vae.`. Any of them may be alone in a file; a checkpoint may lack text encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.families.base import Detected, FamilySpec
from engine.families.parts.stored import StoredPart, json_metadata, same_name
from engine.families.parts.text_encoder import ALONE, kind_of, place_of
from engine.weights.fused import FusedMap
from engine.weights.header import Header, TensorInfo
from engine.weights.quantised import settled
from engine.weights.t5 import is_t5, t5_config, t5_name, t5_name_alone

Names = Literal["maker", "diffusers"]
DENOISER_PREFIXES = ("model.diffusion_model.", "transformer.", "diffusion_model.", "model.", "")
VAE_PREFIXES = ("first_stage_model.", "vae.")
T5_NAME = "t5xxl"
T5_ALONE = ("", "text_encoder_2.", "text_encoder_3.", "transformer.")
COMFY = {"l": "clip_l", "g": "clip_g", T5_NAME: "t5xxl"}  # text_encoders.<this>.transformer.


@dataclass(frozen=True)
class Denoiser:
    """Where a transformer lies in a file, and in whose names."""

    prefix: str
    names: Names


@dataclass(frozen=True)
class DitKind:
    """A family of transformers. `landmarks`: tensors that its files have, by whose names they are in; `foreign`: what
    the files of its relatives have under those names as well."""

    spec: FamilySpec
    encoders: tuple[str, ...]  # in the order of diffusers' text_encoder, text_encoder_2 ...
    landmarks: Mapping[Names, tuple[str, ...]]
    foreign: tuple[str, ...]
    config: Callable[[Mapping[str, TensorInfo]], dict[str, Any]] = field(repr=False)
    layout: Callable[[Mapping[str, Any]], FusedMap] = field(repr=False)
    build: Callable[[Mapping[str, Any]], Any] = field(repr=False)

    def denoiser(self, header: Header) -> Denoiser | None:
        """The transformer of this family in a file; None where there is none."""
        for prefix in DENOISER_PREFIXES:
            for names, landmarks in self.landmarks.items():
                if all(prefix + name in header for name in landmarks):
                    foreign = any(prefix + name in header for name in self.foreign)
                    return None if foreign else Denoiser(prefix, names)
        return None

    def detect(self, header: Header) -> Detected | None:
        """A checkpoint: a transformer with its VAE, with or without text encoders."""
        found = self.denoiser(header)
        if found is None or vae_prefix(header) is None:
            return None
        return Detected(self.spec.name, found.names, self.spec.prediction, self.spec.defaults)

    def detect_denoiser(self, header: Header) -> Detected | None:
        found = self.denoiser(header)
        return found and Detected(self.spec.name, found.names, self.spec.prediction, self.spec.defaults)

    def detect_vae(self, header: Header) -> bool:
        """By the number of latent channels, of an autoencoder for pictures: those for video have a third axis."""
        names = ("decoder.conv_in.weight", *(f"{prefix}decoder.conv_in.weight" for prefix in VAE_PREFIXES))
        shapes = (header.shape(name) for name in names if name in header)
        return any(len(shape) == 4 and shape[1] == self.spec.latent.channels for shape in shapes)

    def detect_clip(self, headers: Sequence[Header]) -> bool:
        """Each of them one of this family's encoders, none twice."""
        kinds = [encoder_of(header) for header in headers]
        return bool(kinds) and len(set(kinds)) == len(kinds) and all(kind in self.encoders for kind in kinds)

    def stored(self, header: Header, found: Denoiser) -> StoredPart:
        """The transformer by the module's names, its layers cut where the file has several in one. A folder's
        config.json wins over what the shapes say."""
        header = settled(header)
        sizes = self.config(header.under(found.prefix))
        stated = json_metadata(header, "easel.transformer")
        config = {key: _frozen(stated.get(key), value) for key, value in sizes.items()}
        if found.names == "diffusers":
            return StoredPart(header, "denoiser", found.prefix, config, same_name, build=self.build, wide=True)
        cut = self.layout(config).cut(header, found.prefix)
        return StoredPart(cut, "denoiser", "", config, same_name, build=self.build, wide=True, place=found.prefix)

    def encoder_places(self, header: Header) -> dict[str, str]:
        """{encoder: its prefix} of those that a checkpoint has, in the order of `encoders`."""
        places: dict[str, str] = {}
        for number, name in enumerate(self.encoders, 1):
            part = "text_encoder." if number == 1 else f"text_encoder_{number}."
            for prefix in (f"text_encoders.{COMFY[name]}.transformer.", part):
                if place_of(header, (prefix,)) is not None or (name == T5_NAME and is_t5(header.under(prefix))):
                    places[name] = prefix
                    break
        return places


def encoder_of(header: Header) -> str | None:
    """Which text encoder is alone in a file."""
    if any(is_t5(header.under(prefix)) for prefix in T5_ALONE):
        return T5_NAME
    return kind_of(header)


def place_alone(header: Header, name: str) -> str:
    """Where in its file an encoder lies that is alone there."""
    if name == T5_NAME:
        return next(prefix for prefix in T5_ALONE if is_t5(header.under(prefix)))
    return place_of(header, ALONE) or ""


def vae_prefix(header: Header) -> str | None:
    return next((prefix for prefix in VAE_PREFIXES if f"{prefix}decoder.conv_in.weight" in header), None)


def stored_t5(header: Header, prefix: str) -> StoredPart:
    """A T5 encoder under `prefix`. Its weights stay in the type they are stored in: it runs once for many steps."""
    header = settled(header)
    tensors = header.under(prefix)
    twice = any(t5_name(name) == "shared.weight" for name in tensors)
    rename = t5_name if twice else t5_name_alone
    named = {own: info for name, info in tensors.items() if (own := rename(name))}
    return StoredPart(
        header, "text_encoder", prefix, t5_config(named), rename, build=build_t5, wide=True, keep_stored=True
    )


def build_t5(config: Mapping[str, Any]) -> Any:
    from engine.families.parts import t5

    return t5.build(config)


def _frozen(stated: Any, value: Any) -> Any:
    """What a config.json states, whose lists are tuples elsewhere; the value where it states nothing."""
    return value if stated is None else tuple(stated) if isinstance(stated, list) else stated
