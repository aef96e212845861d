"""A1111's `parameters` text: written from a prompt graph, and read back into values.

a red fox <lora:snow:0.8>
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x512, Model: name
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from engine.graph.links import is_link, unwrapped

# ComfyUI's names and A1111's. Samplers that it does not know keep their own name.
SAMPLER_NAMES = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "ddim": "DDIM",
    "uni_pc": "UniPC",
    "lcm": "LCM",
}
SCHEDULER_NAMES = {
    "normal": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "ddim_uniform": "DDIM",
    "beta": "Beta",
    "kl_optimal": "KL Optimal",
}
# What A1111 means by the schedule "Automatic": its samplers' own. All others: "normal".
_AUTOMATIC = {
    **dict.fromkeys(("dpmpp_2m", "dpmpp_sde", "dpmpp_2s_ancestral", "dpm_2", "dpm_2_ancestral", "lms"), "karras"),
    **dict.fromkeys(("dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"), "exponential"),
}
_HIRES = ("upscale", "resize", "steps", "upscaler", "sampler", "schedule type", "CFG scale")
_TAG = re.compile(r"<(?:lora|lyco):([^:<>]+)((?::[^:<>]*)*)>")
_STEPS = re.compile(r"^Steps:[ \t]*\d+[ \t]*,", re.MULTILINE)  # where the values begin
_NEGATIVE = re.compile(r"^[ \t]*Negative prompt:", re.MULTILINE)
_NAME = re.compile(r"\s*([\w \-/]+):[ \t]*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])+"', re.DOTALL)
_PLAIN = re.compile(r"[^,\n]*")
_JSON = json.JSONDecoder()
_MODEL_INPUTS = ("ckpt_name", "unet_name", "model_path")
_FARTHEST = 10_000  # nodes that are looked at on the way back from a picture


@dataclass(frozen=True)
class Lora:
    name: str
    strength: float = 1.0
    clip: float | None = None  # that of the text encoder, where it is another


@dataclass(frozen=True)
class Hires:
    """A1111's second pass over a larger picture. `changed`: inputs of its sampler that differ from the first one's."""

    scale: float = 2.0
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    upscaler: str = "Latent"
    changed: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        sized = self.width or self.height
        sampler, scheduler = self.changed.get("sampler_name", ""), self.changed.get("scheduler", "")
        return {
            "Hires upscale": None if sized else f"{self.scale:g}",
            "Hires resize": f"{self.width or 0}x{self.height or 0}" if sized else None,
            "Hires steps": self.steps,
            "Hires upscaler": self.upscaler,
            "Hires sampler": SAMPLER_NAMES.get(sampler, sampler),
            "Hires schedule type": SCHEDULER_NAMES.get(scheduler, scheduler),
            "Hires CFG scale": self.changed.get("cfg"),
        }


@dataclass(frozen=True)
class Parameters:
    """How a picture was made, as far as a text can say it. None or "" is unknown."""

    positive: str = ""
    negative: str = ""
    steps: int | None = None
    sampler_name: str = ""
    scheduler: str = ""
    cfg: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    model: str = ""
    denoise: float | None = None
    clip_skip: int | None = None
    loras: tuple[Lora, ...] = ()
    hires: Hires | None = None
    other: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        tags = "".join(f" {_tag(lora)}" for lora in self.loras)
        rows = [self.positive + tags]
        if self.negative:
            rows.append(f"Negative prompt: {self.negative}")
        values = {
            "Steps": self.steps,
            "Sampler": SAMPLER_NAMES.get(self.sampler_name, self.sampler_name),
            "Schedule type": SCHEDULER_NAMES.get(self.scheduler, self.scheduler),
            "CFG scale": None if self.cfg is None else f"{self.cfg:g}",
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}" if self.width and self.height else None,
            "Model": self.model,
            "Denoising strength": None if self.denoise in (None, 1.0) else f"{self.denoise:g}",
            "Clip skip": self.clip_skip,
            **({} if self.hires is None else self.hires.told()),
            **self.other,
        }
        said = (f"{name}: {_quoted(str(value))}" for name, value in values.items() if value not in (None, ""))
        rows.append(", ".join(said))
        return "\n".join(row for row in rows if row)


def parameters_of(prompt: Mapping[str, Any], node_id: str, width: int, height: int) -> Parameters | None:
    """What the graph says about the picture that node `node_id` got; None when no sampler is behind it."""
    graph = _Graph(prompt)
    sampler = next((n for n in graph.upstream(node_id) if _is_sampler(graph.inputs(n))), None)
    if sampler is None:
        return None
    values = graph.inputs(sampler)
    around = list(graph.upstream(sampler))
    name = next((str(v[k]) for v in map(graph.inputs, around) for k in _MODEL_INPUTS if isinstance(v.get(k), str)), "")
    loras = (v for n, v in graph.along(sampler, "model") if isinstance(v.get("lora_name"), str))
    skip = next((v["stop_at_clip_layer"] for v in map(graph.inputs, around) if "stop_at_clip_layer" in v), None)
    return Parameters(
        positive=graph.words(sampler, ("positive", "conditioning", "guider")),
        negative=graph.words(sampler, ("negative",)),
        steps=_number(graph.first(sampler, "steps"), int),
        sampler_name=str(graph.first(sampler, "sampler_name") or ""),
        scheduler=str(graph.first(sampler, "scheduler") or ""),
        cfg=_number(graph.first(sampler, "cfg"), float),
        seed=_number(graph.first(sampler, "seed", "noise_seed"), int),
        width=width,
        height=height,
        model=PurePosixPath(name.replace("\\", "/")).stem,
        denoise=_number(values.get("denoise"), float),
        clip_skip=-skip if isinstance(skip, int) else None,
        loras=tuple(
            Lora(PurePosixPath(v["lora_name"].replace("\\", "/")).stem, _number(v.get("strength_model"), float) or 0.0)
            for v in reversed(list(loras))
        ),
    )


def is_parameters(text: str) -> bool:
    """Whether a text says how a picture was made, as A1111 writes it."""
    return bool(_STEPS.search(text))


def parse_parameters(text: str) -> Parameters:
    """The values in a `parameters` text, written here or by another program. What is not understood is in `other`."""
    text = "\n".join(text.strip().splitlines())
    begin = max((match.start() for match in _STEPS.finditer(text)), default=text.rfind("\n") + 1)
    settings = _settings_in(text[begin:])
    body = text[:begin]
    if "Steps" not in settings and "Seed" not in settings:
        body, settings = text, {}
    found = _NEGATIVE.search(body)
    positive, negative = (body[: found.start()], body[found.end() :]) if found else (body, "")
    loras = tuple(_lora(match) for match in _TAG.finditer(positive))
    size = re.fullmatch(r"(\d{1,6}) ?x ?(\d{1,6})", settings.pop("Size", ""))
    sampler_name, scheduler = _sampler_of(settings.pop("Sampler", ""), settings.pop("Schedule type", ""))
    return Parameters(
        positive=re.sub(r"\s*" + _TAG.pattern, "", positive).strip(),
        negative=re.sub(r"\s*" + _TAG.pattern, "", negative).strip(),
        steps=_number(settings.pop("Steps", None), int),
        sampler_name=sampler_name,
        scheduler=scheduler,
        cfg=_number(settings.pop("CFG scale", None), float),
        seed=_number(settings.pop("Seed", None), int),
        width=int(size[1]) if size else None,
        height=int(size[2]) if size else None,
        model=settings.pop("Model", ""),
        denoise=_number(settings.pop("Denoising strength", None), float),
        clip_skip=_number(settings.pop("Clip skip", None), int),
        loras=loras,
        hires=_hires_of(settings),
        other=settings,
    )


class _Graph:
    """Ways back through a prompt that may be anything."""

    def __init__(self, prompt: Mapping[str, Any]) -> None:
        self._prompt = prompt

    def inputs(self, node_id: str) -> dict[str, Any]:
        node = self._prompt.get(node_id)
        inputs = node.get("inputs") if isinstance(node, dict) else None
        return inputs if isinstance(inputs, dict) else {}

    def upstream(self, node_id: str) -> Iterator[str]:
        """What feeds the node, nearest first; the node itself is not among it."""
        seen, layer = {node_id}, [node_id]
        while layer and len(seen) < _FARTHEST:
            found = []
            for user in layer:
                for value in self.inputs(user).values():
                    if is_link(value) and value[0] not in seen:
                        seen.add(value[0])
                        found.append(value[0])
            yield from found
            layer = found

    def along(self, node_id: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The nodes behind an input of that name, and behind theirs of the same name."""
        seen: set[str] = set()
        link: Any = self.inputs(node_id).get(name)
        while is_link(link) and link[0] not in seen:
            seen.add(link[0])
            values = self.inputs(link[0])
            yield link[0], values
            link = values.get(name)

    def constant(self, value: Any) -> Any:
        """A constant, also one that comes from a primitive node."""
        for _ in range(20):
            if not is_link(value):
                return unwrapped(value)
            value = self.inputs(value[0]).get("value")
        return None

    def first(self, sampler: str, *names: str) -> Any:
        """The nearest constant of one of these names, at the sampler or behind it."""
        for node_id in (sampler, *self.upstream(sampler)):
            for name in names:
                found = self.constant(self.inputs(node_id).get(name))
                if found is not None and not isinstance(found, dict | list):
                    return found
        return None

    def words(self, sampler: str, names: tuple[str, ...]) -> str:
        """The texts behind the first of these inputs that is linked."""
        link = next((v for v in map(self.inputs(sampler).get, names) if is_link(v)), None)
        if link is None:
            return ""
        texts = [self.constant(self.inputs(n).get("text")) for n in (link[0], *self.upstream(link[0]))]
        return "\n".join(dict.fromkeys(text for text in texts if isinstance(text, str) and text))


def _is_sampler(inputs: Mapping[str, Any]) -> bool:
    return "latent_image" in inputs and bool({"seed", "noise_seed", "sigmas"} & set(inputs))


def _number(value: Any, kind: type[int] | type[float]) -> Any:
    try:
        return None if value is None or isinstance(value, bool) else kind(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def _settings_in(text: str) -> dict[str, str]:
    """Name: value, name: value. A value may be in quotes or JSON, with commas inside; what follows on lines of its own
    is more of them."""
    text = text[:100_000]
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if named := _NAME.match(text, at):
            value, at = _value_at(text, named.end())
            found.setdefault(named[1].strip(), value.strip())  # what looks like one later stood in a text
        rest = _PLAIN.match(text, at)
        at = (rest.end() if rest else at) + 1
    return found


def _value_at(text: str, at: int) -> tuple[str, int]:
    """A value, and where it ends."""
    if quoted := _QUOTED.match(text, at):
        try:
            return str(json.loads(quoted[0], strict=False)), quoted.end()
        except ValueError:
            return quoted[0].strip('"'), quoted.end()
    if text[at : at + 1] in ("[", "{"):
        try:
            end = _JSON.raw_decode(text, at)[1]
            return text[at:end], end
        except (ValueError, RecursionError):
            pass  # brackets that are no JSON
    plain = _PLAIN.match(text, at)
    assert plain  # it may be empty
    return plain[0], plain.end()


def _tag(lora: Lora) -> str:
    if lora.clip is None or lora.clip == lora.strength:
        return f"<lora:{lora.name}:{lora.strength:g}>"
    return f"<lora:{lora.name}:{lora.clip:g}:{lora.strength:g}>"


def _lora(match: re.Match[str]) -> Lora:
    """<lora:name>, <lora:name:1>, <lora:name:text encoder:unet>, <lora:name:te=1:unet=0.5>."""
    told = [part.strip() for part in match[2].split(":")[1:]]
    named = dict(part.split("=", 1) for part in told if "=" in part)
    placed = [part for part in told if "=" not in part]
    clip = _number(named.get("te", placed[0] if placed else None), float)
    strength = _number(named.get("unet", placed[1] if len(placed) > 1 else None), float)
    clip = 1.0 if clip is None else clip
    strength = clip if strength is None else strength
    return Lora(match[1], strength, None if clip == strength else clip)


def _hires_of(settings: dict[str, str]) -> Hires | None:
    """Takes what tells of the second pass out of `settings`."""
    known = {f"hires {name}".lower(): name for name in _HIRES}  # Forge writes "Hires CFG Scale"
    told = {known[name.lower()]: settings.pop(name) for name in list(settings) if name.lower() in known}
    size = re.fullmatch(r"(\d{1,6})x(\d{1,6})", told.get("resize", ""))
    if not size and _number(told.get("upscale"), float) is None:
        settings.update({f"Hires {name}": value for name, value in told.items()})
        return None
    changed: dict[str, Any] = {}
    if told.get("sampler", "Use same sampler") != "Use same sampler":
        changed["sampler_name"], scheduler = _sampler_of(told["sampler"], told.get("schedule type", ""))
        changed |= {"scheduler": scheduler} if scheduler else {}
    if _number(told.get("CFG scale"), float) is not None:
        changed["cfg"] = float(told["CFG scale"])
    width, height = (int(size[1]) or None, int(size[2]) or None) if size else (None, None)
    scale = _number(told.get("upscale"), float) or 2.0
    return Hires(scale, width, height, _number(told.get("steps"), int), told.get("upscaler", "Latent"), changed)


def _sampler_of(sampler: str, schedule: str) -> tuple[str, str]:
    """ComfyUI's names for A1111's; older texts have the schedule as the sampler's last word: "DPM++ 2M Karras"."""
    names = {theirs.lower(): ours for ours, theirs in SAMPLER_NAMES.items()}
    schedules = {"uniform": "normal", **{theirs.lower(): ours for ours, theirs in SCHEDULER_NAMES.items()}}
    words = sampler.lower()
    for theirs, ours in schedules.items():
        if not schedule and words.endswith(" " + theirs) and words not in names:
            words, schedule = words.removesuffix(" " + theirs), theirs
            return names.get(words, words), ours
    name = names.get(words, sampler)
    if schedule.lower() == "automatic":
        return name, _AUTOMATIC.get(name, "normal")
    return name, schedules.get(schedule.lower(), schedule)
