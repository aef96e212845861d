"""What adapters make of a weight, one class a kind: `change.applied(weight, strength)` is the weight as it then is.

LoRA adds a low-rank product (https://arxiv.org/abs/2106.09685), LoHa the product by elements of two such, LoKr a
Kronecker product (both https://arxiv.org/abs/2309.14859), GLoRA a product that takes the weight in as well
(https://arxiv.org/abs/2306.07967); OFT (https://arxiv.org/abs/2306.07280) and BOFT (https://arxiv.org/abs/2311.06243)
turn its rows; DoRA (https://arxiv.org/abs/2402.09353) sets the length of its rows or columns after any of them.
Everything is computed in float32, where the weight is; the weight that is given stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Change(Protocol):
    def applied(self, weight: Tensor, strength: float) -> Tensor: ...


class Addition:
    """A change whose difference depends on nothing but the shape of the weight."""

    def delta(self, shape: torch.Size, device: torch.device) -> Tensor:
        raise NotImplementedError

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        return weight.float() + strength * self.delta(weight.shape, weight.device)


@dataclass(frozen=True, eq=False)
class LowRank(Addition):
    """scale * up @ (mid @) down: what a `LoraEntry` is beside changes of other kinds. `reshaped`: the shape of the
    weight after it, larger than before where the adapter gives a layer more inputs."""

    down: Tensor
    up: Tensor
    mid: Tensor | None
    scale: float
    reshaped: tuple[int, ...] = ()

    def delta(self, shape: torch.Size, device: torch.device) -> Tensor:
        down, up = _on(device, self.down).flatten(1), _on(device, self.up).flatten(1)
        if self.mid is None:
            return (up @ down).reshape(shape) * self.scale
        return torch.einsum("or,rs...,si->oi...", up, _on(device, self.mid), down).reshape(shape) * self.scale

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        grown = _grown(weight.float(), self.reshaped) if self.reshaped else weight.float()
        return grown + strength * self.delta(grown.shape, weight.device)


@dataclass(frozen=True, eq=False)
class LoHa(Addition):
    """(w1_a @ w1_b) * (w2_a @ w2_b), each with a Tucker core t between where there is one."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    t1: Tensor | None
    t2: Tensor | None
    scale: float

    def delta(self, shape: torch.Size, device: torch.device) -> Tensor:
        first, second = _product(self.w1_a, self.w1_b, self.t1, device), _product(self.w2_a, self.w2_b, self.t2, device)
        return (first * second).reshape(shape) * self.scale


@dataclass(frozen=True, eq=False)
class LoKr(Addition):
    """kron(w1, w2), either of them whole or a low-rank product, the second with a Tucker core."""

    w1: Tensor | None
    w1_a: Tensor | None
    w1_b: Tensor | None
    w2: Tensor | None
    w2_a: Tensor | None
    w2_b: Tensor | None
    t2: Tensor | None
    scale: float

    def delta(self, shape: torch.Size, device: torch.device) -> Tensor:
        first = _whole_or_product(self.w1, self.w1_a, self.w1_b, None, device)
        second = _whole_or_product(self.w2, self.w2_a, self.w2_b, self.t2, device)
        first = first.reshape(*first.shape, *(1,) * (second.ndim - first.ndim))
        return torch.kron(first, second.contiguous()).reshape(shape) * self.scale


@dataclass(frozen=True, eq=False)
class Difference(Addition):
    """A plain difference; one that is larger than the weight makes it grow, with zeros."""

    diff: Tensor

    def delta(self, shape: torch.Size, device: torch.device) -> Tensor:
        return _on(device, self.diff).reshape(shape)

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        shape = tuple(self.diff.shape)
        same = weight.numel() == self.diff.numel()
        grown = weight.float() if same else _grown(weight.float(), shape)
        return grown + strength * self.delta(grown.shape, weight.device)


@dataclass(frozen=True, eq=False)
class Rows(Addition):
    """Some rows of an addition that was made for a larger weight, in the order of `ranges`."""

    inner: Addition
    ranges: tuple[tuple[int, int], ...]
    rows: int  # of the larger weight

    def delta(self, shape: torch.Size, device: torch.device) -> Tensor:
        return take_rows(self.inner.delta(torch.Size((self.rows, *shape[1:])), device), self.ranges).reshape(shape)


@dataclass(frozen=True, eq=False)
class GLoRA:
    """W @ a1 @ a2 + b1 @ b2; in files of the first version W @ a2 @ a1 + b2 @ b1, told by where the rank stands."""

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    alpha: float | None

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        w = weight.float()
        a1, a2, b1, b2 = (_on(weight.device, t).flatten(1) for t in (self.a1, self.a2, self.b1, self.b2))
        if self._is_old(weight.shape):
            rank = a1.shape[0]
            change = (b2 @ b1 + w.flatten(1) @ a2 @ a1).reshape(w.shape)
        else:
            rank = a2.shape[0]
            mixed = torch.einsum("oi...,ij,jk->ok...", w, a1, a2)
            change = mixed + (b1 @ b2).reshape(w.shape)
        return w + strength * (1.0 if self.alpha is None else self.alpha / rank) * change

    def _is_old(self, shape: torch.Size) -> bool:
        """Old: a1 (rank, in), a2 (in, rank), b1 (rank, in), b2 (out, rank). The rank is the side that all share."""
        a1, a2, b1, b2 = self.a1.shape, self.a2.shape, self.b1.shape, self.b2.shape
        old = b2[1] == b1[0] == a1[0] == a2[1]
        new = b2[0] == b1[1] == a1[1] == a2[0]
        return old and (not new or (a2[0] == shape[0] == shape[1]))


@dataclass(frozen=True, eq=False)
class OFT:
    """Each group of rows turned by the Cayley transform of its block: (I + Q) (I - Q)^-1 with Q = B - B^T, whose norm
    is at most `constraint` where that is positive. `rescale` then multiplies the rows."""

    blocks: Tensor  # (groups, size, size)
    rescale: Tensor | None
    constraint: float

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        w = weight.float()
        turn = _rotation(_on(weight.device, self.blocks), self.constraint)
        groups, size = turn.shape[:2]
        turned = torch.einsum("knm,kn...->km...", turn, w.reshape(groups, size, *w.shape[1:])).reshape(w.shape)
        if self.rescale is not None:
            turned = turned * _along(_on(weight.device, self.rescale), w)
        return w + strength * (turned - w)


@dataclass(frozen=True, eq=False)
class BOFT:
    """OFT in `m` factors, each of which turns other rows together (a butterfly)."""

    blocks: Tensor  # (m, groups, size, size)
    rescale: Tensor | None
    constraint: float

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        w = weight.float()
        turns = _rotation(_on(weight.device, self.blocks), self.constraint)
        size = turns.shape[-1]
        same = torch.eye(size, device=weight.device)
        turned = w
        for level, turn in enumerate(turns):
            step = turn * strength + same * (1 - strength)
            reach = 2**level * (size // 2)
            mixed = turned.unflatten(0, (-1, 2, reach)).transpose(1, 2).flatten(0, 2).unflatten(0, (-1, size))
            mixed = torch.einsum("bij,bj...->bi...", step, mixed).flatten(0, 1)
            turned = mixed.unflatten(0, (-1, reach, 2)).transpose(1, 2).flatten(0, 2)
        if self.rescale is not None:
            turned = turned * (1 + strength * (_along(_on(weight.device, self.rescale), w) - 1))
        return turned


@dataclass(frozen=True, eq=False)
class DoRA:
    """After `inner` at full strength, rows (or columns) get the lengths of `magnitude`; the strength goes between the
    weight and that."""

    inner: Change
    magnitude: Tensor  # (out, 1, ...) or (1, in, ...)

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        changed = self.inner.applied(weight, 1.0)
        magnitude = _on(weight.device, self.magnitude)
        axis = 0 if magnitude.shape[0] == magnitude.numel() == changed.shape[0] else 1
        length = torch.linalg.vector_norm(changed, dim=[d for d in range(changed.ndim) if d != axis], keepdim=True)
        wanted = magnitude.reshape([-1 if d == axis else 1 for d in range(changed.ndim)])
        scaled = changed * (wanted / (length + torch.finfo(torch.float32).eps))
        return weight.float() + strength * (scaled - weight.float())


@dataclass(frozen=True, eq=False)
class Replacement:
    """Another weight in its place, whatever the strength is."""

    value: Tensor

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        return _on(weight.device, self.value)


@dataclass(frozen=True, eq=False)
class Scaled:
    """The weight times a factor."""

    factor: float

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        return weight.float() * (1 + strength * (self.factor - 1))


@dataclass(frozen=True, eq=False)
class Towards:
    """The way to another weight, as far as the strength says."""

    value: Tensor

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        own = weight.float()
        return own + strength * (_on(weight.device, self.value) - own)


@dataclass(frozen=True, eq=False)
class ModuleChange:
    """What happens to one module: to its weight, one change after the other, and to its bias."""

    weight: tuple[Change, ...] = ()
    bias: tuple[Change, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight after it, where a change gives the module more inputs; () where none does."""
        return next((change.reshaped for change in self.weight if isinstance(change, LowRank) and change.reshaped), ())

    @property
    def nbytes(self) -> int:
        return sum(_nbytes(change) for change in (*self.weight, *self.bias))


def take_rows(tensor: Tensor, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    return torch.cat([tensor[start:stop] for start, stop in ranges])


def _nbytes(change: Any) -> int:
    total = 0
    for field in fields(change):
        value = getattr(change, field.name)
        total += value.nbytes if isinstance(value, Tensor) else _nbytes(value) if field.name == "inner" else 0
    return total


def _on(device: torch.device, tensor: Tensor) -> Tensor:
    return tensor.to(device=device, dtype=torch.float32)


def _product(a: Tensor, b: Tensor, core: Tensor | None, device: torch.device) -> Tensor:
    """a @ b, or with a core (r, s, ...) and a (r, out), b (s, in) -> (out, in, ...)."""
    a, b = _on(device, a), _on(device, b)
    return a @ b.flatten(1) if core is None else torch.einsum("rs...,si,ro->oi...", _on(device, core), b, a)


def _whole_or_product(
    whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None, device: torch.device
) -> Tensor:
    if whole is not None:
        return _on(device, whole)
    assert a is not None and b is not None
    return _product(a, b, core, device)


def held_back(blocks: Tensor, constraint: float) -> Tensor:
    """OFT's blocks B, smaller where the norm of all B - B^T exceeds a positive constraint."""
    if constraint <= 0:
        return blocks
    length = torch.linalg.vector_norm(blocks - blocks.transpose(-1, -2)) + 1e-8
    return torch.where(length > constraint, blocks * (constraint / length), blocks)


def _rotation(blocks: Tensor, constraint: float) -> Tensor:
    held = held_back(blocks, constraint)
    skew = held - held.transpose(-1, -2)
    same = torch.eye(skew.shape[-1], device=skew.device)
    return (same + skew) @ torch.linalg.inv(same - skew)


def _along(scale: Tensor, weight: Tensor) -> Tensor:
    """A factor for each row."""
    return scale.reshape(-1, *(1,) * (weight.ndim - 1))


def _grown(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """With zeros behind the ends of its axes."""
    more = [then - now for now, then in zip(weight.shape, shape, strict=True)]
    return functional.pad(weight, [pad for size in reversed(more) for pad in (0, size)])


def change_of(kind: str, tensors: Mapping[str, Tensor], alpha: float | None, reshaped: tuple[int, ...] = ()) -> Change:
    """The change that a kind's matrices are (see adapter_keys.py)."""
    get = tensors.get
    match kind:
        case "LoRA":
            scale = _scale(alpha, tensors["down"].shape[0])
            return LowRank(tensors["down"], tensors["up"], get("mid"), scale, reshaped)
        case "LoHa":
            w1_a, w1_b, w2_a, w2_b = (tensors[f"hada_{name}"] for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
            return LoHa(w1_a, w1_b, w2_a, w2_b, get("hada_t1"), get("hada_t2"), _scale(alpha, w1_b.shape[0]))
        case "LoKr":
            w1, w1_a, w1_b = (get(f"lokr_{name}") for name in ("w1", "w1_a", "w1_b"))
            w2, w2_a, w2_b = (get(f"lokr_{name}") for name in ("w2", "w2_a", "w2_b"))
            low = w2_b if w2 is None else w1_b if w1 is None else None
            scale = 1.0 if low is None else _scale(alpha, low.shape[0])  # two whole factors carry their scale
            return LoKr(w1, w1_a, w1_b, w2, w2_a, w2_b, get("lokr_t2"), scale)
        case "GLoRA":
            return GLoRA(tensors["a1"], tensors["a2"], tensors["b1"], tensors["b2"], alpha)
        case "OFT":
            build = OFT if tensors["oft_blocks"].ndim == 3 else BOFT
            return build(tensors["oft_blocks"], get("rescale"), alpha or 0.0)
        case "replacement":
            return Replacement(tensors["set_weight"])
    return Difference(tensors["diff"])


def _scale(alpha: float | None, rank: int) -> float:
    return 1.0 if alpha is None else alpha / rank
