"""Graphs as the forms submit them: each function returns a ComfyUI API prompt. No torch, no files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from engine.graph.parameters import Hires, Parameters

Prompt = dict[str, dict[str, Any]]
Link = list[Any]
# A1111's upscalers of its second pass that need no model; what is in neither is a file of upscale_models.
LATENT_UPSCALERS = {
    "Latent": "bilinear",
    "Latent (antialiased)": "bilinear",
    "Latent (bicubic)": "bicubic",
    "Latent (bicubic antialiased)": "bicubic",
    "Latent (nearest)": "nearest-exact",
    "Latent (nearest-exact)": "nearest-exact",
}
PLAIN_UPSCALERS = {"None": "nearest-exact", "Nearest": "nearest-exact", "Lanczos": "lanczos"}


@dataclass(frozen=True)
class LoraChoice:
    name: str  # as listed in models/loras
    strength_model: float = 1.0
    strength_clip: float = 1.0


@dataclass(frozen=True)
class PictureSettings:
    """One picture, or a batch of them. `image` makes it picture-to-picture with `denoise` as how much changes."""

    ckpt_name: str
    positive: str
    negative: str = ""
    width: int = 512
    height: int = 512
    batch_size: int = 1
    seed: int = 0
    steps: int = 20
    cfg: float = 7.0
    sampler_name: str = "euler"
    scheduler: str = "normal"
    denoise: float = 1.0
    loras: tuple[LoraChoice, ...] = ()
    image: str = ""  # a name in the input folder
    filename_prefix: str = "Easel"


def text_to_image(settings: PictureSettings) -> Prompt:
    """CheckpointLoaderSimple -> LoRAs -> prompts -> KSampler -> VAEDecode -> SaveImage."""
    s = settings
    prompt: Prompt = {"1": _node("CheckpointLoaderSimple", ckpt_name=s.ckpt_name)}
    model, clip = ["1", 0], ["1", 1]
    for i, lora in enumerate(s.loras):
        key = f"lora{i + 1}"
        prompt[key] = _node(
            "LoraLoader",
            model=model,
            clip=clip,
            lora_name=lora.name,
            strength_model=lora.strength_model,
            strength_clip=lora.strength_clip,
        )
        model, clip = [key, 0], [key, 1]
    prompt["2"] = _node("CLIPTextEncode", text=s.positive, clip=clip)
    prompt["3"] = _node("CLIPTextEncode", text=s.negative, clip=clip)
    if s.image:
        prompt["image"] = _node("LoadImage", image=s.image)
        prompt["4"] = _node("VAEEncode", pixels=["image", 0], vae=["1", 2])
    else:
        prompt["4"] = _node("EmptyLatentImage", width=s.width, height=s.height, batch_size=s.batch_size)
    prompt["5"] = _node(
        "KSampler",
        model=model,
        positive=["2", 0],
        negative=["3", 0],
        latent_image=["4", 0],
        seed=s.seed,
        steps=s.steps,
        cfg=s.cfg,
        sampler_name=s.sampler_name,
        scheduler=s.scheduler,
        denoise=s.denoise,
    )
    prompt["6"] = _node("VAEDecode", samples=["5", 0], vae=["1", 2])
    prompt["7"] = _node("SaveImage", images=["6", 0], filename_prefix=s.filename_prefix)
    return prompt


def from_a1111(
    told: Parameters, checkpoints: Sequence[str], loras: Sequence[str], upscalers: Sequence[str] = ()
) -> Prompt:
    """The graph that makes what A1111's text tells: with its skipped layers, its BREAKs, and its second pass."""
    prompt = text_to_image(from_parameters(told, checkpoints, loras))
    if told.clip_skip and told.clip_skip > 1:
        clip = prompt["2"]["inputs"]["clip"]
        prompt["skip"] = _node("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-told.clip_skip)
        for key in ("2", "3"):
            prompt[key]["inputs"]["clip"] = ["skip", 0]
    for key, name in (("2", "positive"), ("3", "negative")):
        prompt["5"]["inputs"][name] = _with_breaks(prompt, key)
    if (guidance := told.other.get("Distilled CFG Scale", "")) and re.fullmatch(
        r"\d{1,3}(\.\d+)?", guidance
    ):  # Forge's
        prompt["guidance"] = _node(
            "FluxGuidance", conditioning=prompt["5"]["inputs"]["positive"], guidance=float(guidance)
        )
        prompt["5"]["inputs"]["positive"] = ["guidance", 0]
    if told.hires:
        _add_second_pass(prompt, told, told.hires, upscalers)
    return prompt


def _with_breaks(prompt: Prompt, key: str) -> Link:
    """BREAK ends a chunk of tokens in A1111. Here each part is encoded for itself, and they stand in a row."""
    inputs = prompt[key]["inputs"]
    first, *others = re.split(r"\s*\bBREAK\b\s*", inputs["text"])
    inputs["text"] = first
    link: Link = [key, 0]
    for number, text in enumerate(others, 1):
        prompt[f"{key}part{number}"] = _node("CLIPTextEncode", text=text, clip=inputs["clip"])
        joined = f"{key}joined{number}"
        prompt[joined] = _node("ConditioningConcat", conditioning_to=link, conditioning_from=[f"{key}part{number}", 0])
        link = [joined, 0]
    return link


def _add_second_pass(prompt: Prompt, told: Parameters, hires: Hires, upscalers: Sequence[str]) -> None:
    """A1111 counts the steps of a whole run and does the share that `denoise` is; a KSampler does all it is told."""
    first = prompt["5"]["inputs"]
    latent = prompt["4"]["inputs"]
    width = hires.width or round(latent["width"] * hires.scale / 8) * 8
    height = hires.height or round(latent["height"] * hires.scale / 8) * 8
    method = LATENT_UPSCALERS.get(hires.upscaler)
    if method:
        prompt["larger"] = _node(
            "LatentUpscale", samples=["5", 0], upscale_method=method, width=width, height=height, crop="disabled"
        )
    else:
        pixels: Link = ["6", 0]
        if hires.upscaler not in PLAIN_UPSCALERS:
            name = _file_called(hires.upscaler, upscalers)
            prompt["upscaler"] = _node("UpscaleModelLoader", model_name=name)
            prompt["upscaled"] = _node("ImageUpscaleWithModel", upscale_model=["upscaler", 0], image=pixels)
            pixels = ["upscaled", 0]
        method = PLAIN_UPSCALERS.get(hires.upscaler, "lanczos")
        size = {"width": width, "height": height}
        prompt["scaled"] = _node("ImageScale", image=pixels, upscale_method=method, crop="disabled", **size)
        prompt["larger"] = _node("VAEEncode", pixels=["scaled", 0], vae=["1", 2])
    denoise = 0.7 if told.denoise is None else told.denoise
    steps = max(1, int((hires.steps or first["steps"]) * denoise))
    prompt["second"] = _node(
        "KSampler", **{**first, "latent_image": ["larger", 0], "steps": steps, "denoise": denoise, **hires.changed}
    )
    prompt["decoded"] = _node("VAEDecode", samples=["second", 0], vae=["1", 2])
    prompt["7"]["inputs"]["images"] = ["decoded", 0]
    if method in LATENT_UPSCALERS.values() and "scaled" not in prompt:
        del prompt["6"]  # nobody looks at the first pass


def from_parameters(told: Parameters, checkpoints: Sequence[str], loras: Sequence[str]) -> PictureSettings:
    """A1111's values as settings; what they leave open is the default. Its names of models have no suffix: the file
    that is called so is taken, else the name as it is told."""
    given = {
        name: value
        for name in ("width", "height", "steps", "cfg", "seed", "sampler_name", "scheduler")
        if (value := getattr(told, name)) not in (None, "")
    }
    first = checkpoints[0] if checkpoints else ""
    return PictureSettings(
        ckpt_name=_file_called(told.model, checkpoints) if told.model else first,
        positive=told.positive,
        negative=told.negative,
        loras=tuple(
            LoraChoice(_file_called(one.name, loras), one.strength, one.strength if one.clip is None else one.clip)
            for one in told.loras
        ),
        **given,
    )


def _file_called(stem: str, files: Sequence[str]) -> str:
    wanted = stem.lower()
    return next((name for name in files if PurePosixPath(name).stem.lower() == wanted), f"{stem}.safetensors")


def settings_of(prompt: Prompt) -> PictureSettings | None:
    """The form behind a graph of that shape, the way back from metadata. None where the graph has another shape."""
    try:
        sampler = next(n for n in prompt.values() if n["class_type"] == "KSampler")["inputs"]
        loader = next(n for n in prompt.values() if n["class_type"] == "CheckpointLoaderSimple")["inputs"]
        positive = prompt[sampler["positive"][0]]["inputs"]["text"]
        negative = prompt[sampler["negative"][0]]["inputs"]["text"]
        latent = prompt[sampler["latent_image"][0]]
    except (StopIteration, KeyError, TypeError, IndexError):
        return None
    loras = tuple(
        LoraChoice(n["inputs"]["lora_name"], n["inputs"]["strength_model"], n["inputs"]["strength_clip"])
        for n in prompt.values()
        if n["class_type"] == "LoraLoader"
    )
    size = latent["inputs"] if latent["class_type"] == "EmptyLatentImage" else {}
    return PictureSettings(
        ckpt_name=loader["ckpt_name"],
        positive=positive,
        negative=negative,
        loras=loras,
        **{k: sampler[k] for k in ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")},
        **{k: size[k] for k in ("width", "height", "batch_size") if k in size},
    )


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}
