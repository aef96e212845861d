"""Flux.1 of Black Forest Labs (dev, schnell, Kontext, Fill, and the controls with a picture beside the latent).

One transformer over the tokens of text and picture, trained as a rectified flow. The kinds differ in whether they are
told a guidance (dev) and in how many channels they see: 16, with a control picture 32, with a picture and a mask to
fill 96. T5 gives the tokens of the text, CLIP-L one vector. Kontext sees reference latents as more tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engine.families.base import Clip, Defaults, FamilySpec, LatentFormat, Model, Padding, Prompt, TextBatch
from engine.families.parts.dit_family import DitFamily, NoTextEncoder
from engine.families.parts.dit_kind import T5_NAME, DitKind
from engine.families.parts.text_encoder import CLIP_L
from engine.weights.dit import flux_config, flux_map
from engine.weights.header import Header
from engine.weights.lora_dit import control_lora

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.controls.base import Residuals
    from engine.families.parts.schedule import Schedule

# a linear fit of RGB to latents, as InvokeAI measured it
RGB = (
    (-0.0412, 0.0149, 0.0521), (0.0056, 0.0291, 0.0768), (0.0342, -0.0681, -0.0427), (-0.0258, 0.0092, 0.0463),
    (0.0863, 0.0784, 0.0547), (-0.0017, 0.0402, 0.0158), (0.0501, 0.1058, 0.1152), (-0.0209, -0.0218, -0.0329),
    (-0.0314, 0.0083, 0.0896), (0.0851, 0.0665, -0.0472), (-0.0534, 0.0238, -0.0024), (0.0452, -0.0026, 0.0048),
    (0.0892, 0.0831, 0.0881), (-0.1117, -0.0304, -0.0789), (0.0027, -0.0479, -0.0043), (-0.1146, -0.0827, -0.0598),
)  # fmt: skip
SPEC = FamilySpec(
    name="flux",
    title="Flux.1",
    prediction="flow",
    latent=LatentFormat(
        channels=16,
        scale=0.3611,
        shift=0.1159,
        rgb=RGB,
    ),
    defaults=Defaults(width=1024, height=1024, steps=20, cfg=1.0, sampler_name="euler", scheduler="simple"),
    architecture="flux-1-dev",
    implementation="https://github.com/black-forest-labs/flux",
    base_model_version="flux1",
    family_class="engine.families.flux:Flux",
    text_widths=(4096, 768),
    clip_types=("flux",),
    joint_attention=True,
)


def _build(config: Mapping[str, Any]) -> nn.Module:
    from engine.families.parts.dit import build_flux

    return build_flux(config)


KIND = DitKind(
    spec=SPEC,
    encoders=("l", T5_NAME),
    landmarks={
        "maker": (
            "img_in.weight",
            "txt_in.weight",
            "vector_in.in_layer.weight",
            "double_blocks.0.img_mod.lin.weight",
            "single_blocks.0.linear1.weight",
        ),
        "diffusers": (
            "x_embedder.weight",
            "context_embedder.weight",
            "time_text_embed.text_embedder.linear_1.weight",
            "transformer_blocks.0.attn.add_q_proj.weight",
            "single_transformer_blocks.0.proj_mlp.weight",
        ),
    },
    foreign=("distilled_guidance_layer.in_proj.weight", "controlnet_blocks.0.weight"),
    config=flux_config,
    layout=flux_map,
    build=_build,
)
detect, detect_denoiser = KIND.detect, KIND.detect_denoiser
detect_vae, detect_clip = KIND.detect_vae, KIND.detect_clip

TOKENS = 256  # of T5, at least: what schnell was trained with; longer prompts are longer
PADDING = Padding(least=TOKENS)
CAPTION_TOKENS = 512  # what training uses for dev
MU = 1.15  # of dev's schedule at 1024 px; schnell's has none
GUIDANCE = 3.5  # where a prompt says nothing of it
PLACES = ("offset", "index", "uxo")  # of reference latents (parts/dit.py: places_of)
METHODS = {"offset": "offset", "index": "index", "uxo/uno": "uxo", "uxo": "uxo", "uno": "uxo"}  # as nodes name them


class Flux(DitFamily):
    kind = KIND
    clips = MappingProxyType({"l": CLIP_L})
    loader = "DualCLIPLoader (flux)"
    growing = ("x_embedder",)

    @property
    def vae_place(self) -> str:
        return "vae."

    def encode_prompt(self, modules: Sequence[nn.Module], clip: Clip, text: Prompt) -> TextBatch:
        """T5's tokens and CLIP's pooled vector, zeros for an encoder that is not there."""
        import torch

        from engine.families.parts import clip as clip_part
        from engine.families.parts import t5
        from engine.families.parts.prompt import text_for

        if not modules:
            raise NoTextEncoder(title=self.spec.title, loader=self.loader)
        cross, pooled = torch.zeros(1, TOKENS, 4096), torch.zeros(1, 768)
        for module, tokenizer, name in zip(modules, clip.tokenizers, clip.names, strict=True):
            prompt = text_for(text, name)
            if name == T5_NAME:
                padding = clip.padding or PADDING
                cross = t5.encode_prompt(module, tokenizer, prompt, clip.embeddings, padding, clip.stop_at_layer)
            else:
                _, pooled = clip_part.encode_prompt(module, tokenizer, prompt, clip.embeddings, clip.stop_at_layer)
        return TextBatch(cross, pooled.to(cross.device))

    def draft_prompt(self, clip: Clip, text: Prompt) -> TextBatch:
        import torch

        from engine.families.parts.prompt import text_for, tokens_of

        cross, pooled = torch.zeros(1, TOKENS, 4096), torch.zeros(1, 768)
        for tokenizer, name, config in zip(clip.tokenizers, clip.names, clip.configs, strict=True):
            if name == T5_NAME:
                count = len(tokens_of(text_for(text, name), tokenizer, lambda name: None)) + 1
                cross = torch.zeros(1, (clip.padding or PADDING).length(count), int(config["d_model"]))
            else:
                pooled = torch.zeros(1, int(config["hidden_size"]))
        return TextBatch(cross, pooled)

    def encode_captions(self, modules: Sequence[nn.Module], clip: Clip, captions: Sequence[str]) -> TextBatch:

        from engine.families.parts import clip as clip_part
        from engine.families.parts import t5

        found: dict[str, torch.Tensor] = {}
        for module, tokenizer, name in zip(modules, clip.tokenizers, clip.names, strict=True):
            if name == T5_NAME:
                found["cross"] = t5.encode_captions(module, tokenizer, captions, CAPTION_TOKENS)
            else:
                found["pooled"] = clip_part.encode_captions(module, tokenizer, captions, clip.stop_at_layer)[1]
        if len(found) < 2:
            raise NoTextEncoder(title=self.spec.title, loader=self.loader)
        return TextBatch(found["cross"], found["pooled"])

    def extra_conditions(
        self, model: Model, pooled: torch.Tensor | None, options: Mapping[str, Any], latent: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """guidance (1,), left out where the prompt says None; concat of models with more channels; reference_<n> and
        the method that places them; attention_bias of styles behind the prompt (parts/style.py)."""
        import torch

        from engine.families.parts.concat import checked

        found: dict[str, torch.Tensor] = {}
        guidance = options.get("guidance", GUIDANCE)
        if guidance is not None and model.config["guidance_embeds"]:
            found["guidance"] = torch.tensor([float(guidance)])
        concat = self._concat(model, options, latent)
        if concat is not None:
            found["concat"] = concat
        references = options.get("reference_latents") or ()
        for number, reference in enumerate(references):
            found[f"reference_{number}"] = (checked(reference, model).float() - model.latent.shift) * model.latent.scale
        if references:
            method = METHODS[options.get("reference_latents_method", "offset")]
            found["reference_method"] = torch.tensor([PLACES.index(method)])
        if "attention_bias" in options:
            found["attention_bias"] = options["attention_bias"]
        return found

    def predict(
        self,
        module: nn.Module,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        text: TextBatch,
        control: Residuals | None = None,
    ) -> torch.Tensor:
        import torch

        from engine.families.parts.dit import Reference, places_of, predict_flux

        extra = text.extra
        references: list[Reference] = []
        if "reference_method" in extra:
            latents = [extra[f"reference_{i}"] for i in range(sum(name.startswith("reference_") for name in extra) - 1)]
            places = places_of(PLACES[int(extra["reference_method"][0])], (x.shape[-2], x.shape[-1]), latents)
            references = [Reference(latent, place) for latent, place in zip(latents, places, strict=True)]
        if "concat" in extra:
            x = torch.cat([x, extra["concat"].to(x)], dim=1)
        pooled = text.cross.new_zeros(x.shape[0], 768) if text.pooled is None else text.pooled
        guidance, bias = extra.get("guidance"), extra.get("attention_bias")
        return predict_flux(module, x, timesteps, text.cross, pooled, guidance, references, control, bias)

    def schedule(self, model: Model) -> Schedule:
        """dev's mu for 1024 px, whatever the size is; schnell's time is not moved."""
        from engine.families.parts.schedule import FlowSchedule

        return FlowSchedule.flux(MU) if model.config["guidance_embeds"] else FlowSchedule(1.0, 1.0)

    def _lora_header(self, header: Header) -> Header:
        return control_lora(header)

    def _concat(self, model: Model, options: Mapping[str, Any], latent: torch.Tensor) -> torch.Tensor | None:
        """(batch, more, h, w) of the picture beside the latent and, in Fill, 64 channels of its mask."""
        import torch

        from engine.families.parts.concat import checked, fitted, mask_in_cells, repeat_to

        channels = _seen(model) // 4
        own = model.latent.channels
        if channels <= own:
            return None
        height, width = latent.shape[-2:]
        image = options.get("concat_latent_image")
        if image is None:
            image = torch.zeros(1, own, height, width)
        else:
            image = fitted(checked(image, model).float().cpu(), height, width)
        image = (image - model.latent.shift) * model.latent.scale
        if channels <= 2 * own:
            return image
        mask = options.get("concat_mask", options.get("noise_mask"))
        mask = torch.ones(1, 1, height, width) if mask is None else mask.float().cpu()
        cells = mask_in_cells(mask.reshape(-1, 1, *mask.shape[-2:]), height, width)
        rows = max(len(image), len(cells))
        return torch.cat([repeat_to(image, rows), repeat_to(cells, rows)], dim=1)


def _seen(model: Model) -> int:
    """Channels of a token, of x and what is beside it. An adapter may give the model more (BFL's control LoRAs)."""
    from engine.weights.adapter_kinds import ModuleChange

    entries = [a.entries.get(Flux.growing[0]) for a in model.adapters if a.strength != 0.0]
    grown = [entry.shape[1] for entry in entries if isinstance(entry, ModuleChange) and entry.shape]
    return max(int(model.config["in_channels"]), *grown, 0)
