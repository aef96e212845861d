"""Latents and encoded captions on the disk, one file each, named by all that they depend on.

A key holds the content of the picture or caption, the identity of the model that encodes it and the version of the
preparation, so an entry is right or absent, never stale; datasets and runs share entries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from engine.families.base import Clip, TextBatch, Vae
from engine.models.manager import ModelManager
from engine.progress import ProgressSink
from engine.workspace import replacing
from trainers.data import Item
from trainers.looks import Look, look_at, look_at_mask

PREPARATION = 1  # raise when pictures or captions are prepared in another way


class TensorFiles:
    """Named tensors by key under a folder. A damaged entry counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, *key: object) -> Path:
        name = hashlib.blake2b(json.dumps([PREPARATION, *key]).encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def has(self, *key: object) -> bool:
        return self.path(*key).is_file()

    def get(self, *key: object) -> dict[str, torch.Tensor] | None:
        try:
            # cloned: how memory of a file is aligned must not reach the arithmetic
            return {name: t.clone() for name, t in load_file(self.path(*key)).items()}
        except (OSError, SafetensorError):
            return None

    def put(self, tensors: dict[str, torch.Tensor], *key: object) -> None:
        with replacing(self.path(*key)) as file:
            file.write(save({name: t.contiguous() for name, t in tensors.items()}))


class Latents:
    """Latents of pictures at the size of their bucket, (c, h, w) float32. One at a time, so that the result does not
    depend on what else is encoded."""

    def __init__(self, manager: ModelManager, vae: Vae, folder: Path, *, keep: bool) -> None:
        self._manager = manager
        self._vae = vae
        self._files = TensorFiles(folder)
        self._keep = keep
        self._given: dict[str, torch.Tensor] = {}

    def give(self, item: Item, latent: torch.Tensor) -> None:
        """The latent of a picture that has no file."""
        self._given[item.hash] = latent

    def prepare(self, wanted: Sequence[tuple[Item, Look]], progress: ProgressSink) -> None:
        """Encode what is not there yet, under one lease."""
        if not self._keep:
            return
        missing = [w for w in wanted if not self._files.has(*self._key(*w))]
        if not missing:
            return
        with self._manager.lease(self._vae.ref) as leased:
            for index, (item, look) in enumerate(missing):
                progress(index, len(missing), Path(item.path).name, phase="cache")
                self._encode(leased[self._vae.ref], item, look)
        progress(len(missing), len(missing), phase="cache")

    def get(self, item: Item, look: Look) -> torch.Tensor:
        if item.prior:
            return self._given[item.hash]
        found = self._files.get(*self._key(item, look)) if self._keep else None
        if found:
            return found["latent"]
        with self._manager.lease(self._vae.ref) as leased:
            return self._encode(leased[self._vae.ref], item, look)

    @torch.no_grad()
    def _encode(self, module: torch.nn.Module, item: Item, look: Look) -> torch.Tensor:
        pixels = to_pixels(look_at(item, look))
        pixels = pixels.to(self._manager.device.torch, next(module.parameters()).dtype)
        latent = self._vae.family.encode_image(module, self._vae, pixels[None])[0].float().cpu()
        if self._keep:
            self._files.put({"latent": latent}, *self._key(item, look))
        return latent

    def _key(self, item: Item, look: Look) -> tuple[object, ...]:
        cut = (item.crop,) if item.crop else ()
        return ("latent", self._vae.ref.key, item.hash, *look.key, *cut)


class Masks:
    """How much each place of a picture's latent counts, (1, h, w) float32 with mean 1; None where it has no mask."""

    def __init__(self, factor: int, unmasked_weight: float) -> None:
        self._factor = factor
        self._least = unmasked_weight
        self._get = lru_cache(maxsize=4096)(self._read)

    def get(self, item: Item, look: Look) -> torch.Tensor | None:
        return self._get(item, look) if item.mask else None

    def _read(self, item: Item, look: Look) -> torch.Tensor | None:
        grey = look_at_mask(item, look)
        if grey is None:
            return None
        size = look.bucket.width // self._factor, look.bucket.height // self._factor
        share = torch.from_numpy(np.asarray(grey.resize(size, Image.Resampling.BOX), dtype=np.float32) / 255)[None]
        weight = self._least + (1 - self._least) * share
        # a mask that leaves nothing would make the loss nothing: then all counts alike
        return weight / weight.mean() if float(weight.max()) > 0 else torch.ones_like(weight)


class Texts:
    """Captions encoded by a frozen text encoder, one at a time."""

    def __init__(self, manager: ModelManager, clip: Clip, folder: Path) -> None:
        self._manager = manager
        self._clip = clip
        self._files = TensorFiles(folder)

    def prepare(self, captions: Sequence[str], progress: ProgressSink) -> None:
        missing = [c for c in dict.fromkeys(captions) if not self._files.has(*self._key(c))]
        if not missing:
            return
        with self._manager.lease(*self._clip.refs):
            for index, caption in enumerate(missing):
                progress(index, len(missing), caption[:60], phase="cache")
                self._encode(caption)

    def get(self, captions: Sequence[str]) -> TextBatch:
        return _joined([self._one(caption) for caption in captions])

    def _one(self, caption: str) -> dict[str, torch.Tensor]:
        return self._files.get(*self._key(caption)) or self._encode(caption)

    @torch.no_grad()
    def _encode(self, caption: str) -> dict[str, torch.Tensor]:
        with self._manager.lease(*self._clip.refs) as leased:
            text = self._clip.family.encode_captions([leased[r] for r in self._clip.refs], self._clip, [caption])
        tensors = {"cross": text.cross, **{f"extra.{k}": v for k, v in text.extra.items()}}
        if text.pooled is not None:
            tensors["pooled"] = text.pooled
        tensors = {name: t.float().cpu() for name, t in tensors.items()}
        self._files.put(tensors, *self._key(caption))
        return tensors

    def _key(self, caption: str) -> tuple[object, ...]:
        return ("text", [ref.key for ref in self._clip.refs], self._clip.stop_at_layer, caption)


def to_pixels(image: Image.Image) -> torch.Tensor:
    """A picture as (3, height, width) in -1..1."""
    array = np.asarray(image, dtype=np.float32)
    return torch.from_numpy(array / 127.5 - 1.0).permute(2, 0, 1).contiguous()


def _joined(texts: Sequence[dict[str, torch.Tensor]]) -> TextBatch:
    whole = {name: torch.cat([t[name] for t in texts]) for name in texts[0]}
    extra = {name.removeprefix("extra."): t for name, t in whole.items() if name.startswith("extra.")}
    return TextBatch(whole["cross"], whole.get("pooled"), extra)
