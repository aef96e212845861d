"""Stable Diffusion 3 and 3.5 of Stability AI (medium, large, turbo).

A transformer over the tokens of text and picture, trained as a rectified flow (https://arxiv.org/abs/2403.03206).
CLIP-L and CLIP-G lie side by side, padded to T5's width, and T5's tokens follow; the pooled texts of both CLIPs go with
the time. It was trained with any of the three left out, so that any of them may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engine.families.base import Clip, Defaults, FamilySpec, LatentFormat, Model, Padding, Prompt, TextBatch
from engine.families.parts.dit_family import DitFamily, NoTextEncoder
from engine.families.parts.dit_kind import T5_NAME, DitKind
from engine.families.parts.text_encoder import CLIP_G, CLIP_L
from engine.weights.dit import sd3_config, sd3_map

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.controls.base import Residuals
    from engine.families.parts.schedule import Schedule

# a linear fit of RGB to latents, as Stability's own code for SD3 has it
RGB = (
    (-0.0645, 0.0177, 0.1052), (0.0028, 0.0312, 0.0650), (0.1848, 0.0762, 0.0360), (0.0944, 0.0360, 0.0889),
    (0.0897, 0.0506, -0.0364), (-0.0020, 0.1203, 0.0284), (0.0855, 0.0118, 0.0283), (-0.0539, 0.0658, 0.1047),
    (-0.0057, 0.0116, 0.0700), (-0.0412, 0.0281, -0.0039), (0.1106, 0.1171, 0.1220), (-0.0248, 0.0682, -0.0481),
    (0.0815, 0.0846, 0.1207), (-0.0120, -0.0055, -0.0867), (-0.0749, -0.0634, -0.0456), (-0.1418, -0.1457, -0.1259),
)  # fmt: skip
SPEC = FamilySpec(
    name="sd3",
    title="Stable Diffusion 3",
    prediction="flow",
    latent=LatentFormat(channels=16, scale=1.5305, shift=0.0609, rgb=RGB),
    defaults=Defaults(width=1024, height=1024, steps=28, cfg=4.5, sampler_name="euler", scheduler="sgm_uniform"),
    architecture="stable-diffusion-3-medium",
    base_model_version="sd3",
    family_class="engine.families.sd3:SD3",
    text_widths=(4096, 2048),
    clip_types=("sd3",),
    joint_attention=True,
)


def _build(config: Mapping[str, Any]) -> nn.Module:
    from engine.families.parts.dit import build_sd3

    return build_sd3(config)


KIND = DitKind(
    spec=SPEC,
    encoders=("l", "g", T5_NAME),
    landmarks={
        "maker": (
            "pos_embed",
            "x_embedder.proj.weight",
            "context_embedder.weight",
            "y_embedder.mlp.0.weight",
            "joint_blocks.0.x_block.attn.qkv.weight",
            "joint_blocks.0.context_block.attn.qkv.weight",
            "final_layer.linear.weight",
        ),
        "diffusers": (
            "pos_embed.pos_embed",
            "pos_embed.proj.weight",
            "context_embedder.weight",
            "time_text_embed.text_embedder.linear_1.weight",
            "transformer_blocks.0.attn.add_q_proj.weight",
            "proj_out.weight",
        ),
    },
    foreign=("controlnet_blocks.0.weight",),
    config=sd3_config,
    layout=sd3_map,
    build=_build,
)
detect, detect_denoiser = KIND.detect, KIND.detect_denoiser
detect_vae, detect_clip = KIND.detect_vae, KIND.detect_clip

TOKENS = 77  # of T5, at least; longer prompts are longer
PADDING = Padding(least=TOKENS)
WIDTH = 4096  # of T5 and so of all tokens
CLIP_WIDTHS = {"l": 768, "g": 1280}
SHIFT = 3.0


class SD3(DitFamily):
    kind = KIND
    clips = MappingProxyType({"l": replace(CLIP_L, layer=-2, normed=False), "g": CLIP_G})
    loader = "TripleCLIPLoader"

    def encode_prompt(self, modules: Sequence[nn.Module], clip: Clip, text: Prompt) -> TextBatch:
        """An encoder whose name has no text in `text` is left out; of the two CLIPs, only where both have none."""
        from engine.families.parts import clip as clip_part
        from engine.families.parts import t5
        from engine.families.parts.prompt import text_for

        if not modules:
            raise NoTextEncoder(title=self.spec.title, loader=self.loader)
        asked = _asked(clip.names, text)
        encoders = [self.clips[name] for name in clip.names if name in asked and name != T5_NAME]
        parts = {
            name: (module, tokenizer, config)
            for name, module, tokenizer, config in zip(clip.names, modules, clip.tokenizers, clip.configs, strict=True)
        }
        chunks = [
            clip_part.prompt_chunks(parts[e.name][2], parts[e.name][1], text_for(text, e.name), clip.embeddings, e)
            for e in encoders
        ]
        if chunks and not isinstance(text, str):
            clip_part.same_count(chunks, [parts[e.name][1] for e in encoders], encoders)
        states: dict[str, torch.Tensor] = {}
        pooled: dict[str, torch.Tensor] = {}
        for encoder, one in zip(encoders, chunks, strict=True):
            module, tokenizer, _ = parts[encoder.name]
            states[encoder.name], pooled[encoder.name] = clip_part.encode_chunks(
                module, tokenizer, one, clip.stop_at_layer, encoder
            )
        if T5_NAME in asked:
            module, tokenizer, _ = parts[T5_NAME]
            prompt = text_for(text, T5_NAME)
            states[T5_NAME] = t5.encode_prompt(
                module, tokenizer, prompt, clip.embeddings, clip.padding or PADDING, clip.stop_at_layer
            )
        return joined(states, pooled)

    def draft_prompt(self, clip: Clip, text: Prompt) -> TextBatch:
        import torch

        from engine.families.parts.prompt import chunks_of, text_for, tokens_of

        asked = _asked(clip.names, text)
        states: dict[str, torch.Tensor] = {}
        pooled: dict[str, torch.Tensor] = {}
        lengths = {}
        for name, tokenizer, config in zip(clip.names, clip.tokenizers, clip.configs, strict=True):
            if name == T5_NAME and name in asked:
                count = len(tokens_of(text_for(text, name), tokenizer, lambda name: None)) + 1
                states[name] = torch.zeros(1, (clip.padding or PADDING).length(count), int(config["d_model"]))
            elif name in asked:
                length = int(config["max_position_embeddings"])
                lengths[name] = length * len(chunks_of(text_for(text, name), tokenizer, lambda name: None))
                pooled[name] = torch.zeros(1, int(config["hidden_size"]))
        for name in pooled:
            states[name] = torch.zeros(1, max(lengths.values()), pooled[name].shape[1])
        return joined(states, pooled)

    def encode_captions(self, modules: Sequence[nn.Module], clip: Clip, captions: Sequence[str]) -> TextBatch:
        from engine.families.parts import clip as clip_part
        from engine.families.parts import t5

        if not modules:
            raise NoTextEncoder(title=self.spec.title, loader=self.loader)
        states: dict[str, torch.Tensor] = {}
        pooled: dict[str, torch.Tensor] = {}
        for name, module, tokenizer in zip(clip.names, modules, clip.tokenizers, strict=True):
            if name == T5_NAME:
                states[name] = t5.encode_captions(module, tokenizer, captions, TOKENS)
            else:
                states[name], pooled[name] = clip_part.encode_captions(
                    module, tokenizer, captions, clip.stop_at_layer, self.clips[name]
                )
        return joined(states, pooled)

    def extra_conditions(
        self, model: Model, pooled: torch.Tensor | None, options: Mapping[str, Any], latent: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """The text and the time are all that it is told."""
        return {}

    def predict(
        self,
        module: nn.Module,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        text: TextBatch,
        control: Residuals | None = None,
    ) -> torch.Tensor:
        from engine.families.parts.dit import predict_sd3

        pooled = text.cross.new_zeros(x.shape[0], sum(CLIP_WIDTHS.values())) if text.pooled is None else text.pooled
        return predict_sd3(module, x, timesteps, text.cross, pooled, control)

    def schedule(self, model: Model) -> Schedule:
        from engine.families.parts.schedule import FlowSchedule

        return FlowSchedule(SHIFT, 1000.0)


def joined(states: Mapping[str, torch.Tensor], pooled: Mapping[str, torch.Tensor]) -> TextBatch:
    """What the encoders gave, by their names, as SD3 sees it: zeros in the place of a CLIP that is not there, no tokens
    of a T5 that is not there."""
    import torch
    import torch.nn.functional as F

    if not states:
        return TextBatch(torch.zeros(1, TOKENS, WIDTH), torch.zeros(1, sum(CLIP_WIDTHS.values())))
    any_state = next(iter(states.values()))
    rows, device = any_state.shape[0], any_state.device
    tokens: list[torch.Tensor] = []
    t5 = states.get(T5_NAME)
    width = WIDTH if t5 is None else t5.shape[-1]
    lengths = [states[name].shape[1] for name in CLIP_WIDTHS if name in states]
    if lengths:
        length = min(lengths)
        sides = [
            states[name][:, :length].float() if name in states else torch.zeros(rows, length, missing, device=device)
            for name, missing in CLIP_WIDTHS.items()
        ]
        both = torch.cat(sides, dim=-1)
        tokens.append(F.pad(both, (0, width - both.shape[-1])))
    if t5 is not None:
        tokens.append(t5.float())
    told = [
        pooled[name].float() if name in pooled else torch.zeros(rows, missing, device=device)
        for name, missing in CLIP_WIDTHS.items()
    ]
    return TextBatch(torch.cat(tokens, dim=1), torch.cat(told, dim=-1))


def _asked(names: Sequence[str], text: Prompt) -> set[str]:
    """Which encoders encode: all of one text; of texts by name, those named, and CLIP-L and -G with one another."""
    if isinstance(text, str):
        return set(names)
    named = set(text)
    if named & CLIP_WIDTHS.keys():
        named |= CLIP_WIDTHS.keys()
    return named & set(names)
