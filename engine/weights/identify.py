"""What a weights file is, told from its header: kind, base model, title. Torch-free and fast: a list of files is named
without reading any. Families known here say what a checkpoint is of (engine/families); this names the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.weights.adapter_keys import split_key
from engine.weights.foreign import foreign
from engine.weights.header import Header
from engine.weights.lora import is_lora, title_of
from engine.weights.t2i_keys import is_t2i

Kind = Literal[
    "checkpoint", "denoiser", "text_encoder", "vae", "lora", "embedding", "controlnet", "upscaler", "unknown"
]

# Family names as engine/families has or will have them, with the words that users know.
TITLES: Mapping[str, str] = {
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "SDXL",
    "sdxl_refiner": "SDXL refiner",
    "sd3": "Stable Diffusion 3",
    "flux": "Flux.1",
    "": "a model that is not known here",
}
_TEXT_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl"}
_UNETS = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl_refiner"}  # refiners have no LoRAs
_BY_NAME = (
    (r"(^|_)flux|flux-1", "flux"),
    (r"stable-diffusion-3|^sd3", "sd3"),
    (r"sdxl|stable-diffusion-xl", "sdxl"),
    (r"sd_?v?2|stable-diffusion-v2", "sd2"),
    (r"sd_?v?1|sd_1|stable-diffusion-v1", "sd1"),
)


@dataclass(frozen=True)
class FileInfo:
    """What a file is. `family` is the model family it is of or for, "" when unknown."""

    kind: Kind
    family: str
    title: str
    trigger_words: tuple[str, ...] = ()

    @property
    def family_title(self) -> str:
        return TITLES.get(self.family, self.family)


def identify(header: Header) -> FileInfo:
    """By tensor names first, which do not lie, then by metadata."""
    title = title_of(header.path, header.metadata)
    if is_lora(header):
        return FileInfo("lora", lora_family(header), title, _trigger_words(header))
    names = header.tensors
    other = foreign(names)
    if other:
        whole = _has(names, "first_stage_model.") or _has(names, "vae.")
        return FileInfo("checkpoint" if whole else "denoiser", other, title)
    if _has(names, "model.diffusion_model.") or (_has(names, "unet.") and _has(names, "vae.")):
        return FileInfo("checkpoint", _checkpoint_family(header), title)
    control = _has(names, "control_model.") or _has(names, "controlnet_") or "input_hint_block.0.weight" in names
    if control or is_t2i(header):
        return FileInfo("controlnet", _unet_family(header), title)
    if "decoder.conv_in.weight" in names or "first_stage_model.decoder.conv_in.weight" in names:
        return FileInfo("vae", "", title)
    if _has(names, "text_model.encoder.") or _has(names, "encoder.block."):
        return FileInfo("text_encoder", "", title)
    if "input_blocks.0.0.weight" in names or "conv_in.weight" in names or _has(names, "double_blocks."):
        return FileInfo("denoiser", "flux" if _has(names, "double_blocks.") else _unet_family(header), title)
    if _has(names, "joint_blocks."):
        return FileInfo("denoiser", "sd3", title)
    if len(names) <= 8 and all(1 <= len(t.shape) <= 2 for t in names.values()) and names:
        return FileInfo("embedding", _TEXT_WIDTHS.get(next(iter(names.values())).shape[-1], ""), title)
    return FileInfo("unknown", "", title)


def lora_family(header: Header) -> str:
    """Which family a LoRA is for, by the names of its modules and the width of the text it attends to."""
    names = header.tensors
    joined = " ".join(names)
    if re.search(r"double_blocks|single_transformer_blocks|single_blocks", joined):
        return "flux"
    if re.search(r"joint_blocks|transformer\.transformer_blocks", joined):
        return "sd3"
    if "lora_te2_" in joined or "text_encoder_2." in joined:
        return "sdxl"
    for name, info in names.items():
        key = split_key(name)
        if key and key[1] == "down" and re.search(r"attn2.*to_[kv]$", key[0]) and len(info.shape) >= 2:
            return _TEXT_WIDTHS.get(info.shape[1], "") or by_metadata(header.metadata)
    return by_metadata(header.metadata)


def by_metadata(metadata: Mapping[str, str]) -> str:
    words = f"{metadata.get('modelspec.architecture', '')} {metadata.get('ss_base_model_version', '')}".lower()
    return next((family for pattern, family in _BY_NAME if re.search(pattern, words)), "")


def _checkpoint_family(header: Header) -> str:
    names = header.tensors
    if _has(names, "model.diffusion_model.double_blocks."):
        return "flux"
    if _has(names, "model.diffusion_model.joint_blocks."):
        return "sd3"
    unet = _unet_family(header)
    if unet:
        return unet
    if "model.diffusion_model.label_emb.0.0.weight" in names or _has(names, "text_encoder_2."):
        return "sdxl"
    if _has(names, "cond_stage_model.model."):
        return "sd2"
    return "sd1" if _has(names, "cond_stage_model.") or _has(names, "text_encoder.") else by_metadata(header.metadata)


def _unet_family(header: Header) -> str:
    """By the width of the text that a UNet, or the half of one, attends to; "" where there is none."""
    for name, info in header.tensors.items():
        if name.endswith("attn2.to_k.weight") and len(info.shape) == 2:
            return _UNETS.get(info.shape[1], "")
    return ""


def _trigger_words(header: Header) -> tuple[str, ...]:
    words = header.metadata.get("modelspec.trigger_phrase", "")
    return tuple(word.strip() for word in words.split(",") if word.strip())


def _has(names: Mapping[str, object], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
