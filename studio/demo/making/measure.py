"""Measures the demo model: how often what the prompt says is what the tagger reads in the picture.

`python -m studio.demo.making.measure configs/demo --count 240` prints a line per group, with Wilson intervals.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnxruntime
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image

from studio.demo.captions import prompt
from studio.demo.drawing import render, sheet
from studio.demo.making import packing
from studio.demo.making.denoiser import noise_schedule
from studio.demo.spec import COLOURS, COUNTS, GROUNDS, SHAPES, Spec, sample_held_out, sample_seen, sample_spec, tags

THRESHOLD = 0.35


@dataclass(frozen=True)
class Rate:
    """A share with its Wilson interval at 95 %."""

    hits: int
    count: int

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.hits / self.count:.1f} % [{100 * low:.1f}, {100 * high:.1f}] (n={self.count})"

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end (Wilson 1927)."""
        z, n, p = 1.96, self.count, self.hits / self.count
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


class TaggerFile:
    """The bundled tagger, read with onnxruntime alone."""

    def __init__(self, folder: Path, threads: int = 1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
        self._size = self._session.get_inputs()[0].shape[1]
        with (folder / "selected_tags.csv").open(encoding="utf-8") as file:
            self.names = [row["name"] for row in csv.DictReader(file)]

    def scores(self, images: Sequence[Image.Image]) -> list[dict[str, float]]:
        """Each picture's score for every label."""
        scores: list[dict[str, float]] = []
        for at in range(0, len(images), 64):
            resized = [image.convert("RGB").resize((self._size, self._size)) for image in images[at : at + 64]]
            batch = np.stack([np.asarray(image)[..., ::-1] for image in resized]).astype(np.float32)
            outputs = np.asarray(self._session.run(None, {"input": batch})[0])
            scores += [dict(zip(self.names, map(float, row), strict=True)) for row in outputs]
        return scores


def pipeline(path: Path, scheduler: str = "DPMSolverMultistepScheduler") -> StableDiffusionPipeline:
    """diffusers' own pipeline around the packed model."""
    model = packing.load(path)
    karras = {"use_karras_sigmas": True} if scheduler == "DPMSolverMultistepScheduler" else {}
    build: Any = StableDiffusionPipeline
    pipe: StableDiffusionPipeline = build(
        vae=model.vae,
        text_encoder=model.text,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=getattr(diffusers, scheduler).from_config(noise_schedule().config, **karras),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(
    pipe: StableDiffusionPipeline, prompts: Sequence[str], seed: int = 0, steps: int = 16, cfg: float = 5.0
) -> list[Image.Image]:
    """A picture per prompt, each with its own seed."""
    images: list[Image.Image] = []
    for at in range(0, len(prompts), 24):
        part = list(prompts[at : at + 24])
        generators = [torch.Generator().manual_seed(seed * 100_003 + at + i) for i in range(len(part))]
        made: Any = pipe(part, num_inference_steps=steps, guidance_scale=cfg, generator=generators)
        images += made.images
    return images


def judge(scores: Sequence[dict[str, float]], specs: Sequence[Spec]) -> dict[str, Rate]:
    """How often each attribute is read as the spec has it; characters are judged by their name alone."""
    hits: dict[str, list[bool]] = {}
    for score, spec in zip(scores, specs, strict=True):
        for name, right in _readings(score, spec).items():
            hits.setdefault(name, []).append(right)
    return {name: Rate(sum(rights), len(rights)) for name, rights in hits.items()}


def micro_f1(tagger: TaggerFile, count: int, seed: int = 1234) -> float:
    """F1 over all labels of `count` fresh pictures, the rating included."""
    rng = random.Random(seed)
    specs = [sample_spec(rng) for _ in range(count)]
    hits = misses = extras = 0
    for scores, spec in zip(tagger.scores([render(spec) for spec in specs]), specs, strict=True):
        found, true = {name for name, score in scores.items() if score > THRESHOLD}, {"general", *tags(spec)}
        hits, misses, extras = hits + len(found & true), misses + len(true - found), extras + len(found - true)
    return 2 * hits / (2 * hits + misses + extras)


def _readings(score: dict[str, float], spec: Spec) -> dict[str, bool]:
    if spec.character:
        return {"character": score[spec.character] > THRESHOLD}
    readings = {
        "shape": _best(score, SHAPES) == spec.shape,
        "colour": _best(score, tuple(COLOURS)) == spec.colour,
        "ground": _best(score, [f"{ground}_background" for ground in GROUNDS]) == f"{spec.ground}_background",
    }
    said = {name: value for name in ("texture", "face", "size", "place") if (value := getattr(spec, name))}
    return {
        "all three": all(readings.values()),
        **readings,
        "count": _best(score, tuple(COUNTS.values())) == COUNTS[spec.count],
        **{name: score[value] > THRESHOLD for name, value in said.items()},
        **({"outlined": score["outlined"] > THRESHOLD} if spec.outlined else {}),
    }


def _best(score: dict[str, float], names: Sequence[str]) -> str:
    return max(names, key=lambda name: score[name])


def main() -> None:
    """Prints the figures and, if asked, saves a sheet of pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--scheduler", default="DPMSolverMultistepScheduler")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipe = pipeline(args.folder / "easel-demo.safetensors", args.scheduler)
    tagger = TaggerFile(args.folder / "tagger", args.threads)
    print(f"tagger: micro-F1 {micro_f1(tagger, 2000):.4f} on 2000 fresh pictures", flush=True)
    shown: list[tuple[Image.Image, str]] = []
    for group, sample in (("seen", sample_seen), ("held out", sample_held_out)):
        rng = random.Random(args.seed)
        specs = [sample(rng) for _ in range(args.count)]
        images = generate(pipe, [prompt(spec) for spec in specs], args.seed, args.steps, args.cfg)
        for kind, pictures in (("drawn", [render(spec) for spec in specs]), ("generated", images)):
            rates = judge(tagger.scores(pictures), specs)
            print(f"{group}, {kind}: " + "; ".join(f"{name} {rate}" for name, rate in rates.items()), flush=True)
        shown += [(image, prompt(spec)) for image, spec in zip(images[:30], specs, strict=False)]
    start = time.process_time()
    generate(pipe, ["red star, blue background"], steps=args.steps, cfg=args.cfg)
    print(f"one picture of {args.steps} steps: {time.process_time() - start:.2f} CPU s on {args.threads} thread(s)")
    if args.sheet:
        sheet([image for image, _ in shown], 10, [text for _, text in shown]).save(args.sheet)


if __name__ == "__main__":
    main()
