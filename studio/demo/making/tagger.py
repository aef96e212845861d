"""The bundled tagger: a small network with WD14's contract, and the test of it.

Input NHWC float32, BGR 0..255, any batch; output probabilities; labels in selected_tags.csv. It learns from every
combination, held-out ones too, because it is to judge the text-to-image model. `bbdr` it never sees; of creatures
without a name it says what can be said (how many, where, on which ground).
"""

from __future__ import annotations

import csv
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from studio.demo.drawing import render
from studio.demo.making.autoencoder import SCALING_FACTOR, decoded, latents_of
from studio.demo.making.muon import MuonAdamW, cosine
from studio.demo.making.pictures import pool, to_unit
from studio.demo.oddities import Oddity, render_oddity, sample_nameless, sample_oddity
from studio.demo.spec import CHARACTERS, GENERAL_TAGS, Spec, sample_spec, tags

SIZE = 128
RATINGS = ("general", "sensitive", "questionable", "explicit")


@dataclass(frozen=True)
class Label:
    """A line of selected_tags.csv: category 9 is a rating, 0 general, 4 a character."""

    tag_id: int
    name: str
    category: int


LABELS = (
    *(Label(9999999 - i, name, 9) for i, name in enumerate(RATINGS)),
    *(Label(1000 + i, name, 0) for i, name in enumerate(GENERAL_TAGS)),
    *(Label(5000 + i, name, 4) for i, name in enumerate(CHARACTERS)),
)


@dataclass(frozen=True)
class Tagged:
    """Pictures as bytes, (count, 3, 128, 128), and their labels as 0 and 1, (count, labels)."""

    pixels: Tensor
    labels: Tensor


class Tagger(nn.Module):
    """Pixels as WD14 takes them to probabilities."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 16, 2), (16, 24, 2), (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 64, 2), (64, 64, 1), (64, 64, 2))
        self.body = nn.Sequential(*(_convolution(*width) for width in widths))
        self.where = nn.Conv2d(64, 32, 1)
        self.hidden = nn.Linear(32 * 16 + 64, 96)
        self.last = nn.Linear(96, len(LABELS))

    def forward(self, input: Tensor) -> Tensor:
        """(batch, 128, 128, 3), BGR, 0..255 -> (batch, labels), 0..1."""
        return torch.sigmoid(self.logits(input.permute(0, 3, 1, 2).flip(1) / 127.5 - 1))

    def logits(self, x: Tensor) -> Tensor:
        """(batch, 3, 128, 128), RGB, -1..1 -> (batch, labels)."""
        features = self.body(x)
        placed = F.relu(self.where(features)).flatten(1)
        hidden = F.relu(self.hidden(torch.cat([placed, features.amax((2, 3))], 1)))
        return self.last(F.dropout(hidden, 0.1, self.training))


def tagged(count: int, seed: int, unnamed_share: float = 0.2) -> Tagged:
    """Fresh pictures with labels; `unnamed_share` of them nameless colours and creatures."""
    rng = random.Random(seed)
    subjects: list[Spec | Oddity] = []
    for _ in range(count):
        make = rng.choice((sample_nameless, sample_oddity)) if rng.random() < unnamed_share else sample_spec
        subjects.append(make(rng))
    drawn = iter(subjects)
    return Tagged(pool(lambda: _draw(next(drawn)), count), torch.stack([_labels(one) for one in subjects]))


def train(data: Tagged, steps: int, lr: float = 6e-3, batch: int = 64) -> Tagger:
    """A trained tagger."""
    tagger = Tagger()
    optimizer = MuonAdamW([tagger], lr, momentum=0.9)
    start = time.time()
    for step in range(steps):
        index = torch.randint(0, len(data.pixels), (batch,))
        logits = tagger.logits(_disturbed(to_unit(data.pixels[index])))
        loss = F.binary_cross_entropy_with_logits(logits, data.labels[index])
        optimizer.step(loss * 10, cosine(step, steps))
        if (step + 1) % 100 == 0:
            print(f"tagger {step + 1}/{steps} loss {loss.detach():.4f} {time.time() - start:.0f} s", flush=True)
    return tagger.eval()


@torch.no_grad()
def through_vae(data: Tagged, vae: AutoencoderKL, count: int) -> None:
    """Replaces the first `count` pictures by what the autoencoder makes of them and of slightly wrong latents."""
    for at in range(0, count, 50):
        part = slice(at, min(at + 50, count))
        latents = latents_of(vae, to_unit(data.pixels[part])).mean
        latents += torch.randn_like(latents) * torch.rand(len(latents), 1, 1, 1) * 0.3 / SCALING_FACTOR
        data.pixels[part] = ((decoded(vae, latents) + 1) * 127.5).round().clamp(0, 255).byte()


def export(tagger: Tagger, counts: Tensor, folder: Path) -> None:
    """Writes model.onnx and selected_tags.csv; `counts` is how often each label occurred."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        tagger,
        (torch.zeros(2, SIZE, SIZE, 3),),
        folder / "model.onnx",
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes={"input": {0: torch.export.Dim("batch", min=1, max=4096)}},
        dynamo=True,
        external_data=False,
    )
    without_traces(folder / "model.onnx")
    with (folder / "selected_tags.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([one.tag_id, one.name, one.category, int(n)] for one, n in zip(LABELS, counts, strict=True))


def without_traces(path: Path) -> None:
    """Removes the exporter's notes (stack traces with local paths) from a model file."""
    model = onnx.load(path)
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.save(model, path)


def make(vae: AutoencoderKL, folder: Path, quick: bool, seed: int = 5) -> None:
    """Draws, trains, writes."""
    torch.manual_seed(seed)
    data = tagged(200 if quick else 16000, seed)
    through_vae(data, vae, 50 if quick else 2500)
    export(train(data, steps=10 if quick else 1500), data.labels.sum(0), folder)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    kernel = 5 if inputs == 3 else 3
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def _draw(subject: Spec | Oddity) -> Image.Image:
    return render_oddity(subject, SIZE) if isinstance(subject, Oddity) else render(subject, SIZE)


def _labels(subject: Spec | Oddity) -> Tensor:
    names = {"general", *(subject.tags if isinstance(subject, Oddity) else tags(subject))}
    return torch.from_numpy(np.array([label.name in names for label in LABELS], np.float32))


def _disturbed(x: Tensor) -> Tensor:
    """Brightness, tint and noise, now and then blurred."""
    count = len(x)
    x = x * (1 + 0.08 * torch.randn(count, 1, 1, 1)) + 0.04 * torch.randn(count, 3, 1, 1)
    x = x + torch.randn_like(x) * torch.rand(count, 1, 1, 1) * 0.06
    if random.random() < 0.3:
        small = random.choice((48, 64, 96))
        x = F.interpolate(F.interpolate(x, size=small, mode="bilinear", antialias=True), size=SIZE, mode="bilinear")
    return x.clamp(-1, 1)
