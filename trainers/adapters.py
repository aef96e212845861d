"""The adapters under training: peft's LoRA layers in a twin of a shared module.

The twin has a structure of its own over the same frozen tensors, so the base that everybody else uses is never touched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from engine.families.base import Part
from engine.models.manager import ModelRef
from engine.weights.lora import LoraEntry
from trainers.seeds import generator

ADAPTER = "default"


@dataclass
class TrainedPart:
    """One module of the base with its adapters. `layers` are peft's, by the module names of the base."""

    part: Part
    ref: ModelRef
    twin: nn.Module
    layers: dict[str, LoraLayer] = field(repr=False)

    def pairs(self) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
        """(module name, down, up) of every adapter, float32."""
        for name, layer in self.layers.items():
            yield name, layer.lora_A[ADAPTER].get_parameter("weight"), layer.lora_B[ADAPTER].get_parameter("weight")

    def parameters(self) -> list[nn.Parameter]:
        return [weight for _, down, up in self.pairs() for weight in (down, up)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights under names that say which is which, not copied."""
        return {
            f"{self.part}.{name}.{which}": weight.detach()
            for name, down, up in self.pairs()
            for which, weight in (("down", down), ("up", up))
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`: values are copied into the parameters, which stay the same objects."""
        with torch.no_grad():
            for name, weight in self.tensors().items():
                weight.copy_(tensors[name])

    def rebind(self, shared: nn.Module) -> None:
        """Use the tensors of `shared`, in case the base was dropped and read again while no lease held it."""
        now = dict(shared.named_parameters(remove_duplicate=False)) | dict(shared.named_buffers(remove_duplicate=False))
        for path, module in self.twin.named_modules():
            for own in (module._parameters, module._buffers):
                for name, tensor in own.items():
                    key = re.sub(r"\.base_layer\b", "", f"{path}.{name}".lstrip("."))
                    if tensor is not None and key in now and own[name] is not now[key]:
                        own[name] = now[key]  # type: ignore[assignment]


def inject(
    part: Part, ref: ModelRef, twin: nn.Module, targets: Sequence[str], *, rank: int, alpha: float, seed: int
) -> TrainedPart:
    """LoRA beside each of `targets`: down from Kaiming's uniform distribution, up zero, both float32.

    peft draws from the global generator; that is put back, and what it drew is replaced by draws of our own.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # annotated int, any number works
        lora_dropout=0.0,
        target_modules="|".join(re.escape(name) for name in targets),  # a string is matched whole; a list by ending
    )
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, twin, adapter_name=ADAPTER)
    layers = {name: module for name, module in twin.named_modules() if isinstance(module, LoraLayer)}
    if set(layers) != set(targets):
        raise RuntimeError(f"peft put adapters on {sorted(set(layers) ^ set(targets))[:5]} other than asked")
    _silence_dropout(twin)
    trained = TrainedPart(part, ref, twin, layers)
    with torch.no_grad():
        for name, down, up in trained.pairs():
            down.data, up.data = down.data.float(), up.data.float()
            fresh = torch.empty(down.shape)
            nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator(seed, "init", part, name))
            down.copy_(fresh)
            up.zero_()
    return trained


def live_entries(parts: Sequence[TrainedPart], alpha: float) -> dict[Part, dict[str, LoraEntry]]:
    """The adapters as generation takes LoRAs. The tensors are the training's own, as they are at each moment."""
    return {p.part: {n: LoraEntry(down.detach(), up.detach(), alpha=alpha) for n, down, up in p.pairs()} for p in parts}


def checkpoint_gradients(twin: nn.Module) -> None:
    """Compute activations again in the backward pass. Both libraries do so only in train mode."""
    # transformers 5.23 and later, transformers before that, diffusers
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable", "enable_gradient_checkpointing")
    enable = next((getattr(twin, name) for name in names if hasattr(twin, name)), None)
    if enable is None:
        raise RuntimeError(f"{type(twin).__name__} has no gradient checkpointing")
    enable()
    twin.train()


def _silence_dropout(twin: nn.Module) -> None:
    """Dropout would draw from the global generator, which other jobs draw from as well."""
    for module in twin.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module.__dict__.get("dropout"), float):
            module.dropout = 0.0  # type: ignore[assignment]  # attention of transformers keeps it as a number
