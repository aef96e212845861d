"""How much memory a run takes on a device beside its weights, estimated before it begins: what the ledger keeps free.

The numbers a call holds at its peak come from the families and the kinds of control, which were measured. A call takes
all prompts of one size at once; of several calls the largest counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from engine.families.base import Adapter, Model
from engine.families.controls.base import Control
from engine.families.parts.adapters import made_bytes
from engine.models.manager import ModelManager
from engine.sampling.conditioning import area_of
from engine.weights.lora import LoraEntry

CUSHION = 2.0  # allocators keep more than is used, and convolutions want workspaces
LEAST = 64 << 20  # of a GPU's libraries, whatever the model
RESIDUALS = 3  # what a control says, the same at its strength, and the sum with another's

Sides = Sequence[Sequence[Sequence[Any]]]


def working_bytes(
    models: ModelManager,
    model: Model,
    sides: Sides,
    latent: Tensor,
    controls: Sequence[Control] = (),
    growth: float = 1.0,
) -> int:
    """For a run over latents (batch, c, h, w), `growth` times as wide and high at last, and the prompts of all sides.
    What adapters make of weights is in it."""
    size = itemsize(models)
    height, width = (math.ceil(side * growth) for side in latent.shape[-2:])
    calls = _calls(model, sides, height, width, size)
    rows, cells = latent.shape[0] * max(map(len, sides), default=1) * len(sides), height * width
    nets = [control.net.of(model) for control in controls]
    said = sum(net.kind.numbers_said(net, cells) for net in nets)
    hints = sum(3 * cells * net.factor**2 for net in nets)
    beside = rows * (RESIDUALS * said * size + 2 * hints * 4)
    unpacking = max(models.unpacking(ref) for ref in (model.ref, *(net.ref for net in nets)))
    of_adapters = made_bytes(model.adapters, model.modules) + _branch_bytes(models, model.adapters, size)
    least = 0 if models.device.is_host else LEAST
    return least + int(CUSHION * (latent.shape[0] * calls + beside)) + unpacking + of_adapters


def itemsize(models: ModelManager) -> int:
    """Bytes of a number that models compute with there (families/parts/precision.py)."""
    return 4 if models.device.kind in ("cpu", "fake") else 2


def _calls(model: Model, sides: Sides, height: int, width: int, size: int) -> int:
    """Bytes of the largest call of the model for one row of the latent. Where one side has a prompt for an area, the
    others are asked there as well."""
    found: dict[tuple[int, int], list[list[int]]] = {}
    for number, side in enumerate(sides):
        for entry in side:
            area = area_of(entry[1].get("area"), height, width)
            shape = (height, width) if area is None else (area.height, area.width)
            needs = found.setdefault(shape, [[] for _ in sides])
            needs[number].append(_of_prompt(model, entry, prod(shape), size))
    return max(
        (sum(max(sum(own), max(map(max, filter(None, needs)))) for own in needs) for needs in found.values()), default=0
    )


def _of_prompt(model: Model, entry: Sequence[Any], cells: int, size: int) -> int:
    """Of one prompt over so many cells: latents beside the picture are more of them, a bias of attention is a matrix
    over all tokens."""
    cross, options = entry[0], entry[1]
    seen = cells + sum(prod(reference.shape[-2:]) for reference in options.get("reference_latents") or ())
    held = model.family.numbers_held(model, seen, cross.shape[1]) * size
    bias = options.get("attention_bias")
    return held + (0 if bias is None else (bias.shape[-1] + seen // 4) ** 2 * (4 + size))


def _branch_bytes(models: ModelManager, adapters: Sequence[Adapter], size: int) -> int:
    """Of low-rank pairs, which lie on the device while they act."""
    if models.device.is_host:
        return 0
    entries = [entry for a in adapters if a.strength != 0.0 for entry in a.entries.values()]
    pairs = [(e.down, e.up, e.mid) for e in entries if isinstance(e, LoraEntry)]
    return size * sum(tensor.numel() for pair in pairs for tensor in pair if tensor is not None)
