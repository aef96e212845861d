"""Makes pictures through the studio's API and judges them: how often is the creature there, is a prompt right.

A rate is reported with its Wilson interval; seeds are drawn from the commit, so that no seed can have been chosen.
"""

from __future__ import annotations

import hashlib
import io
import math
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from engine.workflows import LoraChoice, PictureSettings, text_to_image
from tests.browser.conftest import Studio, until

ROOT = Path(__file__).resolve().parents[2]
MODEL = "easel-demo.safetensors"
SIZE = 128
BATCH = 12


@dataclass(frozen=True)
class Rate:
    """`hits` of `total`."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        return self.hits / self.total

    @property
    def wilson(self) -> tuple[float, float]:
        """95 % interval."""
        return self.interval(1.959964)

    def interval(self, z: float) -> tuple[float, float]:
        """Wilson's interval of z standard errors (E. B. Wilson 1927)."""
        n, p = self.total, self.share
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def may_be_at_least(self, bound: float) -> bool:
        """False when the rate is below the bound beyond chance. Beyond 99.9 %, because pictures of one prompt look
        alike and count for fewer than they are."""
        return self.interval(3.290527)[1] >= bound

    def may_be_at_most(self, bound: float) -> bool:
        """False when the rate is above the bound beyond chance, by the same measure."""
        return self.interval(3.290527)[0] <= bound

    def __str__(self) -> str:
        low, high = self.wilson
        return f"{self.hits} / {self.total} = {100 * self.share:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"


def commit_seed() -> int:
    """A seed from the commit that is tested; from the code's own bytes where there is no repository."""
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        text = asked.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:5], "big")


def draw(studio: Studio, prompts: Sequence[str], lora: str, seed: int, strength: float = 1.0) -> list[Image.Image]:
    """A picture for each prompt, in order. Equal prompts are made together, `BATCH` at a time."""
    made: list[Image.Image | None] = [None] * len(prompts)
    for prompt in dict.fromkeys(prompts):
        places = [i for i, p in enumerate(prompts) if p == prompt]
        for start in range(0, len(places), BATCH):
            part = places[start : start + BATCH]
            for place, image in zip(part, _batch(studio, prompt, lora, strength, seed, len(part)), strict=True):
                made[place] = image
            seed += 1
    return [image for image in made if image is not None]


def rate(images: Sequence[Image.Image], is_right: Callable[[Image.Image], bool]) -> Rate:
    return Rate(sum(map(is_right, images)), len(images))


def creature_prompts(trigger: str, grounds: Sequence[str], count: int) -> list[str]:
    return [f"{trigger}, {grounds[i % len(grounds)]} background" for i in range(count)]


def _batch(studio: Studio, prompt: str, lora: str, strength: float, seed: int, count: int) -> list[Image.Image]:
    graph = text_to_image(
        PictureSettings(
            ckpt_name=MODEL,
            positive=prompt,
            width=SIZE,
            height=SIZE,
            batch_size=count,
            seed=seed,
            steps=16,
            cfg=2.0,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            loras=(LoraChoice(lora, strength, strength),) if lora else (),
            filename_prefix="judged/picture",
        )
    )
    prompt_id = studio.post("/prompt", {"prompt": graph})["prompt_id"]
    history = until(lambda: studio.get(f"/history/{prompt_id}"), 300)[prompt_id]
    assert history["status"]["status_str"] == "success", history["status"]
    images = [image for output in history["outputs"].values() for image in output.get("images", [])]
    return [_fetch(studio, image) for image in images]


def _fetch(studio: Studio, image: dict[str, str]) -> Image.Image:
    query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
    with urllib.request.urlopen(f"{studio.url}/view?{query}", timeout=30) as answer:
        return Image.open(io.BytesIO(answer.read())).convert("RGB")


def wait_for_job(studio: Studio, job_id: str, seconds: float) -> dict[str, Any]:
    """The job when it has ended well; its error otherwise."""
    started = time.monotonic()
    job = until(lambda: _ended(studio, job_id), seconds, pause=1.0)
    assert job["state"] == "done", job["error"]
    return {**job, "seconds": time.monotonic() - started}


def _ended(studio: Studio, job_id: str) -> dict[str, Any] | None:
    job = studio.get(f"/studio/jobs/{job_id}")
    return job if job["state"] in ("done", "failed", "cancelled") else None
