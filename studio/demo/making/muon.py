"""Muon: momentum whose matrices are orthogonalised before the step (Jordan et al. 2024), for matrices and convolutions.

It needs about half of AdamW's CPU time here. Nothing at run time depends on it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """For parameters of two or more dimensions; the update is scaled to an RMS like AdamW's (Liu et al. 2025)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step. Parameters of one shape are orthogonalised together."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                average = state.setdefault("average", torch.zeros_like(param))
                average.lerp_(param.grad, 1 - group["momentum"])
                update = param.grad.lerp(average, group["momentum"])
                by_shape[param.size(0), param.numel() // param.size(0)].append((param, update))
            for (rows, columns), pairs in by_shape.items():
                updates = orthogonalised(torch.stack([update.reshape(rows, columns) for _, update in pairs]))
                for (param, _), update in zip(pairs, updates, strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                    param.add_(update.view_as(param), alpha=-group["lr"] * 0.2 * math.sqrt(max(rows, columns)))


class MuonAdamW:
    """Muon for the weights inside, AdamW for the rest (biases, norms, embeddings, the first and the last layer)."""

    def __init__(self, modules: Iterable[nn.Module], lr: float, adam_ratio: float = 0.5, momentum: float = 0.95):
        inner: list[nn.Parameter] = []
        outer: list[nn.Parameter] = []
        for module in modules:
            for name, param in module.named_parameters():
                if param.requires_grad:
                    (inner if _is_inner(name, param) else outer).append(param)
        self.params = inner + outer
        self._lr, self._adam_ratio = lr, adam_ratio
        self._muon = Muon(inner, lr=lr, momentum=momentum)
        self._adam = torch.optim.AdamW(outer, lr=lr, betas=(0.9, 0.98), weight_decay=1e-4)

    def step(self, loss: Tensor, scale: float) -> None:
        """Backward, clip to norm 1, one step at `scale` times the learning rate."""
        for param in self.params:
            param.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for optimizer, ratio in ((self._muon, 1.0), (self._adam, self._adam_ratio)):
            for group in optimizer.param_groups:
                group["lr"] = self._lr * scale * ratio
            optimizer.step()


def orthogonalised(updates: Tensor, steps: int = 5) -> Tensor:
    """Each matrix with its singular values brought near 1 by Newton-Schulz steps; (batch, rows, columns)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = updates.size(-2) > updates.size(-1)
    x = updates.mT if tall else updates
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def cosine(step: int, steps: int, warmup: int = 50) -> float:
    """Share of the learning rate: a linear start, then half a cosine down to 2 %."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))


def _is_inner(name: str, param: nn.Parameter) -> bool:
    return param.ndim in (2, 4) and not any(part in name for part in ("conv_in", "conv_out", "embedding", "last"))
