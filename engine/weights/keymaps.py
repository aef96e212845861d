"""Key maps between the LDM layout of single-file checkpoints and diffusers' module names, and configs from shapes.

A map is computed from the model's config (diffusers' words), so that it fits any number of levels and layers. It maps
whole dotted names by their longest known prefix, both ways: weights of files and the modules that LoRAs name use the
same maps. Torch-free. It knows layouts, not files or families.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import FileError
from engine.weights.header import TensorInfo

Config = Mapping[str, Any]


class UnknownLayout(FileError):
    en = "The {what} in {file} has a layout that is not known: {reason}."
    zh = "{file} 中的{what}结构无法识别：{reason}。"

    def __init__(self, *, what: str, reason: str, file: str = "this file") -> None:
        super().__init__(what=what, reason=reason, file=file)


@dataclass(frozen=True)
class KeyMap:
    """Pairs of (LDM prefix, diffusers prefix). A prefix ends where a dot does. Of several LDM prefixes for one of
    diffusers the first is the way back."""

    pairs: tuple[tuple[str, str], ...]
    _to_diffusers: dict[str, str] = field(init=False, repr=False, compare=False)
    _to_ldm: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_to_diffusers", dict(self.pairs))
        object.__setattr__(self, "_to_ldm", {new: old for old, new in reversed(self.pairs)})

    def to_diffusers(self, name: str) -> str | None:
        """The diffusers name of an LDM tensor or module; None when the layout has no such thing."""
        return _rename(name, self._to_diffusers)

    def to_ldm(self, name: str) -> str | None:
        return _rename(name, self._to_ldm)


_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def unet_map(config: Config) -> KeyMap:
    """LDM's `input_blocks / middle_block / output_blocks` <-> UNet2DConditionModel of this config."""
    levels = len(config["block_out_channels"])
    layers = _per_level(config["layers_per_block"], levels)
    down = ["CrossAttn" in kind for kind in config["down_block_types"]]
    up = ["CrossAttn" in kind for kind in config["up_block_types"]]
    pairs = [
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("label_emb.0.0", "add_embedding.linear_1"),
        ("label_emb.0.2", "add_embedding.linear_2"),
        ("input_blocks.0.0", "conv_in"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
        *_resnet("middle_block.0", "mid_block.resnets.0"),
        ("middle_block.1", "mid_block.attentions.0"),
        *_resnet("middle_block.2", "mid_block.resnets.1"),
    ]
    block = 1
    for level in range(levels):
        for layer in range(layers[level]):
            pairs += _resnet(f"input_blocks.{block}.0", f"down_blocks.{level}.resnets.{layer}")
            if down[level]:
                pairs.append((f"input_blocks.{block}.1", f"down_blocks.{level}.attentions.{layer}"))
            block += 1
        if level < levels - 1:
            pairs.append((f"input_blocks.{block}.0.op", f"down_blocks.{level}.downsamplers.0.conv"))
            block += 1
    block = 0
    for level in range(levels):
        count = layers[levels - 1 - level] + 1
        for layer in range(count):
            pairs += _resnet(f"output_blocks.{block}.0", f"up_blocks.{level}.resnets.{layer}")
            if up[level]:
                pairs.append((f"output_blocks.{block}.1", f"up_blocks.{level}.attentions.{layer}"))
            if layer == count - 1 and level < levels - 1:
                place = 2 if up[level] else 1
                pairs.append((f"output_blocks.{block}.{place}.conv", f"up_blocks.{level}.upsamplers.0.conv"))
            block += 1
    return KeyMap(tuple(pairs))


def vae_map(config: Config) -> KeyMap:
    """LDM's `encoder / decoder` with `down / mid / up` <-> AutoencoderKL of this config."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    pairs = [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv")]
    for side in ("encoder", "decoder"):
        pairs += [(f"{side}.{name}", f"{side}.{name}") for name in ("conv_in", "conv_out")]
        pairs.append((f"{side}.norm_out", f"{side}.conv_norm_out"))
        for i in (0, 1):
            pairs += _vae_resnet(f"{side}.mid.block_{i + 1}", f"{side}.mid_block.resnets.{i}")
        pairs += [
            (f"{side}.mid.attn_1.{ldm}", f"{side}.mid_block.attentions.0.{name}")
            for ldm, name in _VAE_ATTENTION.items()
        ]
    for level in range(levels):
        for layer in range(layers):
            pairs += _vae_resnet(f"encoder.down.{level}.block.{layer}", f"encoder.down_blocks.{level}.resnets.{layer}")
        pairs.append((f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv"))
        up = levels - 1 - level  # LDM counts the decoder's levels from the fine end
        for layer in range(layers + 1):
            pairs += _vae_resnet(f"decoder.up.{up}.block.{layer}", f"decoder.up_blocks.{level}.resnets.{layer}")
        pairs.append((f"decoder.up.{up}.upsample.conv", f"decoder.up_blocks.{level}.upsamplers.0.conv"))
    return KeyMap(tuple(pairs))


def clip_text_map() -> KeyMap:
    """`text_model.…` of files <-> CLIPTextModel, which has no such prefix since transformers 5."""
    parts = ("embeddings.token_embedding", "embeddings.position_embedding", "encoder", "final_layer_norm")
    return KeyMap(tuple((f"text_model.{part}", part) for part in parts))


def vae_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What the shapes of an LDM autoencoder say of its config: every field of AutoencoderKL but the norm groups."""
    levels = 1 + max((int(k.split(".")[2]) for k in tensors if k.startswith("encoder.down.")), default=-1)
    layers = 1 + max((int(k.split(".")[4]) for k in tensors if re.match(r"encoder\.down\.0\.block\.", k)), default=-1)
    if not levels or not layers or "decoder.conv_in.weight" not in tensors:
        raise UnknownLayout(what="VAE", reason="encoder.down or decoder.conv_in is missing")
    widths = [tensors[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)]
    return {
        "in_channels": tensors["encoder.conv_in.weight"].shape[1],
        "out_channels": tensors["decoder.conv_out.weight"].shape[0],
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in tensors,
    }


def clip_text_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What the shapes of a `text_model.…` say of CLIPTextConfig: everything but heads and activation."""
    try:
        vocabulary, width = tensors["text_model.embeddings.token_embedding.weight"].shape
        positions = tensors["text_model.embeddings.position_embedding.weight"].shape[0]
        layers = 1 + max(int(k.split(".")[3]) for k in tensors if k.startswith("text_model.encoder.layers."))
        inner = tensors["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise UnknownLayout(what="text encoder", reason=f"{error} is missing") from error
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": positions,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
    }


def _rename(name: str, prefixes: Mapping[str, str]) -> str | None:
    end = len(name)
    while end > 0:
        found = prefixes.get(name[:end])
        if found is not None:
            return found + name[end:]
        end = name.rfind(".", 0, end)
    return None


def _resnet(ldm: str, name: str) -> list[tuple[str, str]]:
    return [(f"{ldm}.{old}", f"{name}.{new}") for old, new in _RESNET.items()]


def _vae_resnet(ldm: str, name: str) -> list[tuple[str, str]]:
    same = [(f"{ldm}.{part}", f"{name}.{part}") for part in ("norm1", "conv1", "norm2", "conv2")]
    return [*same, (f"{ldm}.nin_shortcut", f"{name}.conv_shortcut")]


def _per_level(value: int | list[int] | tuple[int, ...], levels: int) -> list[int]:
    return [value] * levels if isinstance(value, int) else list(value)


def diffusers_vae_config(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """As `vae_config`, of an autoencoder whose names are diffusers'."""
    levels = count_of(tensors, "encoder.down_blocks.{}.resnets.0.conv1.weight")
    if not levels or "decoder.conv_in.weight" not in tensors:
        raise UnknownLayout(what="VAE", reason="encoder.down_blocks or decoder.conv_in is missing")
    widths = [tensors[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"].shape[0] for level in range(levels)]
    return {
        "in_channels": tensors["encoder.conv_in.weight"].shape[1],
        "out_channels": tensors["decoder.conv_out.weight"].shape[0],
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "block_out_channels": tuple(widths),
        "layers_per_block": count_of(tensors, "encoder.down_blocks.0.resnets.{}.conv1.weight"),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
        "mid_block_add_attention": any(".mid_block.attentions.0." in name for name in tensors),
    }


_OLD_VAE = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def modern_vae_name(name: str) -> str:
    """diffusers' own names before 0.18 for the attention of autoencoders, as they are now."""
    return re.sub(r"(?<=attentions\.0\.)(query|key|value|proj_attn)\b", lambda m: _OLD_VAE[m[1]], name)


def count_of(tensors: Mapping[str, TensorInfo], pattern: str) -> int:
    """How many names of that pattern there are, from 0 on."""
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count
