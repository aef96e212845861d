"""What tells one family of UNets from another, and where its parts lie in a file. Torch-free: header in, words out.

Sizes come from the shapes in the file. What shapes cannot tell is as the family says, or as the file's metadata says:
`easel.unet`, `easel.vae`, `easel.text_encoder`, `easel.text_encoder_2` (JSON: fields of diffusers' and transformers'
configs), `easel.tokenizer` (JSON: {"vocab", "merges"}), `easel.defaults` (JSON: fields of `Defaults`),
`easel.latent_rgb` (JSON: a row of red, green, blue for each latent channel, and one more for the bias).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from engine.families.base import Defaults, Detected, FamilySpec, LatentFormat, Prediction
from engine.families.parts.edm import edm_prediction
from engine.families.parts.stored import BadMetadata, json_metadata, stored_vae
from engine.families.parts.text_encoder import TextEncoder, kind_of
from engine.weights.foreign import foreign
from engine.weights.header import Header

Names = Literal["ldm", "diffusers"]
SIZE_EMBEDDING = 256  # numbers that one size is embedded in
UNET_PREFIXES = ("model.diffusion_model.", "unet.", "diffusion_model.", "model.", "")
VAE_PREFIXES: dict[Names, str] = {"ldm": "first_stage_model.", "diffusers": "vae."}

_LANDMARKS: tuple[tuple[Names, str, str, str, str], ...] = (  # first and last layer, second embedding, first attention
    ("ldm", "input_blocks.0.0", "out.2", "label_emb.0.0", "input_blocks.1.1."),
    ("diffusers", "conv_in", "conv_out", "add_embedding.linear_1", "down_blocks.0.attentions.0."),
)

_LAST_NORM = r"^(output_blocks|up_blocks)\..*transformer_blocks\.0\.norm1\.bias$"


@dataclass(frozen=True)
class UNetFacts:
    """What the header says of a UNet: enough to know its family."""

    prefix: str
    names: Names
    in_channels: int
    context: int  # width of the text that it attends to
    linear: bool  # whether linear layers stand around its attention, or 1x1 convolutions
    vector: int  # width of its second embedding, of size and pooled text; 0 without one
    finest: bool  # whether it attends at the finest level
    last_norm: str  # a norm's bias in its last block of attention, behind the prefix


def unet_facts(header: Header) -> UNetFacts | None:
    """The UNet in a file, under LDM's or diffusers' names; None where there is none."""
    for prefix in UNET_PREFIXES:
        for names, first, last, vector, finest in _LANDMARKS:
            if f"{prefix}{first}.weight" not in header or f"{prefix}{last}.weight" not in header:
                continue
            inside = header.under(prefix)
            keys = next((t.shape for name, t in inside.items() if name.endswith(".attn2.to_k.weight")), None)
            around = next((t.shape for name, t in inside.items() if name.endswith(".proj_in.weight")), None)
            if keys is None or around is None:
                continue
            size = inside.get(f"{vector}.weight")
            return UNetFacts(
                prefix=prefix,
                names=names,
                in_channels=inside[f"{first}.weight"].shape[1],
                context=keys[1],
                linear=len(around) == 2,
                vector=size.shape[1] if size else 0,
                finest=any(name.startswith(finest) for name in inside),
                last_norm=max((n for n in inside if re.search(_LAST_NORM, n)), key=_places, default=""),
            )
    return None


def _places(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def heads_of_64(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Of models since SD 2: as many heads as make each 64 wide. diffusers' name for the count is an old mistake."""
    heads = tuple(max(1, width // 64) for width in sizes["block_out_channels"])
    return {"attention_head_dim": heads, "norm_num_groups": 32}


@dataclass(frozen=True)
class UNetKind:
    """A family of UNets. `fits` knows its UNet among others; `unet` and `vae` are what shapes do not tell."""

    spec: FamilySpec
    encoders: tuple[TextEncoder, ...]
    fits: Callable[[UNetFacts], bool] = field(repr=False)
    unet: Callable[[Mapping[str, Any]], Mapping[str, Any]] = field(repr=False)
    vae: Mapping[str, Any]
    channels: tuple[int, ...] = (4, 8, 9)  # that its UNet may take: plain, InstructPix2Pix, inpainting
    grey: tuple[float, ...] = (0.8223, -0.6876, 0.6364, 0.1380)  # a grey picture as a latent of the denoiser's scale
    guess: Callable[[Header, UNetFacts], Prediction] | None = None  # what it predicts, where the file does not say so

    def detect(self, header: Header) -> Detected | None:
        """A checkpoint: UNet, VAE and every text encoder."""
        facts = self.facts(header)
        if facts is None or not facts.prefix or not header.has_prefix(VAE_PREFIXES[facts.names] + "decoder."):
            return None
        if any(encoder.place(header) is None for encoder in self.encoders):
            return None
        vae = stored_vae(header, VAE_PREFIXES[facts.names], self.vae)
        return self._detected(header, facts, factor_of(vae.config))

    def detect_denoiser(self, header: Header) -> Detected | None:
        facts = self.facts(header)
        return None if facts is None else self._detected(header, facts, 8)

    def detect_vae(self, header: Header) -> bool:
        """By the number of latent channels. Which of the families with as many it is of makes no difference: latents
        along links are in the VAE's own scale."""
        names = (f"{prefix}decoder.conv_in.weight" for prefix in ("", *VAE_PREFIXES.values()))
        return any(n in header and header.shape(n)[1] == self.spec.latent.channels for n in names)

    def detect_clip(self, headers: Sequence[Header]) -> bool:
        return sorted(kind_of(header) or "" for header in headers) == sorted(e.name for e in self.encoders)

    def facts(self, header: Header) -> UNetFacts | None:
        """Of a UNet of this family. Relatives that want another text encoder or a video are not of it."""
        facts = None if foreign(header.tensors) else unet_facts(header)
        return facts if facts and facts.in_channels in self.channels and self.fits(facts) else None

    def prediction(self, header: Header) -> Prediction:
        """As the tensors or the metadata that mark it say; else as the family can tell; else the family's own."""
        continuous = edm_prediction(header)
        if continuous is not None:
            return continuous
        stated = header.metadata.get("modelspec.prediction_type", "")
        stated = str(stated or json_metadata(header, "easel.scheduler").get("prediction_type", "")).lower()
        if "v_pred" in header or stated.startswith("v"):
            return "v"
        facts = None if stated or self.guess is None else self.facts(header)
        return self.guess(header, facts) if facts and self.guess else self.spec.prediction

    def zero_snr(self, header: Header) -> bool:
        """Whether the last step of its training was noise alone: by a tensor that marks it or a folder's scheduler."""
        return "ztsnr" in header or bool(json_metadata(header, "easel.scheduler").get("rescale_betas_zero_snr"))

    def latent(self, header: Header, vae_config: Mapping[str, Any]) -> LatentFormat:
        """`vae_config` may be empty: of a denoiser alone."""
        latent = self.spec.latent
        channels = vae_config.get("latent_channels", latent.channels)
        latent = replace(latent, channels=channels, scale=float(vae_config.get("scaling_factor", latent.scale)))
        text = header.metadata.get("easel.latent_rgb")
        if text is None:
            return latent
        try:
            rows = [(float(r), float(g), float(b)) for r, g, b in json.loads(text)]
        except (ValueError, TypeError) as error:
            raise BadMetadata(path=header.path, key="easel.latent_rgb", reason=str(error)) from error
        bias = rows[latent.channels] if len(rows) > latent.channels else (0.0, 0.0, 0.0)
        return replace(latent, rgb=tuple(rows[: latent.channels]), rgb_bias=bias)

    def _detected(self, header: Header, facts: UNetFacts, factor: int) -> Detected:
        defaults = _defaults(header, self.spec.defaults)
        return Detected(self.spec.name, facts.names, self.prediction(header), defaults, factor)


def factor_of(vae_config: Mapping[str, Any]) -> int:
    """Pixels per latent cell along a side."""
    return 2 ** (len(vae_config["block_out_channels"]) - 1)


def _defaults(header: Header, family: Defaults) -> Defaults:
    given = json_metadata(header, "easel.defaults")
    width, _, height = header.metadata.get("modelspec.resolution", "").partition("x")
    if width.isdigit() and height.isdigit() and 64 <= int(width) <= 4096 and 64 <= int(height) <= 4096:
        given = {"width": int(width), "height": int(height), **given}
    known = {field.name: type(field.default) for field in fields(Defaults)}
    for name, value in given.items():
        if name not in known or not isinstance(value, (int, float) if known[name] is float else known[name]):
            raise BadMetadata(path=header.path, key="easel.defaults", reason=f"{name} = {value!r}")
    return replace(family, **given)
