"""Graphs as the forms submit them: each function returns a ComfyUI API prompt. No torch, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from engine.graph.parameters import Parameters

Prompt = dict[str, dict[str, Any]]


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
        loras=tuple(LoraChoice(_file_called(one.name, loras), one.strength, one.strength) for one in told.loras),
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
