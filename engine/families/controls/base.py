"""Networks that look at a picture (edges, depth, a pose) and say what a denoiser should add to its layers.

A kind of them knows a file by its header and how its network is called. What flows along a CONTROL_NET link is a
`ControlNet`; an entry of a CONDITIONING link that is under control holds a `Control`. Torch-free at import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import FileError, GraphError
from engine.weights.header import Header

if TYPE_CHECKING:
    import torch
    from torch import nn

    from engine.families.base import FamilySpec, LatentFormat, Model, TextBatch, Vae
    from engine.models.manager import ModelManager, ModelRef

# What is added where, by places that kinds and families agree on: "down" and "mid" of a UNet, "intra" of its levels,
# "double" and "single" blocks of Flux, "joint" ones of SD3. A family's `predict` takes them.
Residuals = Mapping[str, Sequence["torch.Tensor"]]


class NotAControlNet(FileError):
    en = (
        "{path} is not a ControlNet that is known here: it seems to be {seems}. Choose a ControlNet or T2I adapter for "
        "{known}."
    )
    zh = "{path} 不是此处已知的 ControlNet：它看起来是 {seems}。请选择适用于 {known} 的 ControlNet 或 T2I 适配器。"


class ControlOfOtherModel(GraphError):
    en = "{net} is for {needs}, but {model} is {title}. Use a ControlNet for {title}, or a model that {net} is for."
    zh = "{net} 适用于 {needs}，而 {model} 是 {title}。请使用适用于 {title} 的 ControlNet，或使用 {net} 所对应的模型。"


class NeedsVae(GraphError):
    en = "{net} looks at latents, so it needs a VAE. Use Apply ControlNet with its VAE input connected."
    zh = "{net} 以潜变量为输入，因此需要 VAE。请使用带 VAE 输入的“应用 ControlNet”并连接它。"


class VaeOfOtherModel(GraphError):
    en = "{net} looks at latents of {need} channels, but {vae} makes them of {got}. Connect the VAE of {title}."
    zh = "{net} 以 {need} 通道的潜变量为输入，但 {vae} 生成 {got} 通道的潜变量。请连接 {title} 的 VAE。"


class UnknownControlType(GraphError):
    en = "This union ControlNet has {count} types of control; the one that was set has the number {kind}."
    zh = "此联合 ControlNet 有 {count} 种控制类型，而所设类型的编号为 {kind}。"


class ControlKind(Protocol):
    """One kind of network."""

    def detect(self, header: Header) -> bool: ...

    def load(
        self, manager: ModelManager, path: Path, base: Model | None = None, *, allow_pickle: bool = False
    ) -> ControlNet:
        """Registers the network with the manager; only its header is read. base: the model that a file of differences
        is added to."""
        ...

    def problem(self, net: ControlNet, model: Model) -> str:
        """For which models the net is, in words, where it does not fit this one; "" where it does."""
        ...

    def numbers_said(self, net: ControlNet, cells: int) -> int:
        """How many numbers its residuals have for one latent of so many cells."""
        ...

    def residuals(
        self,
        module: nn.Module,
        net: ControlNet,
        denoiser: nn.Module,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        text: TextBatch,
        hint: torch.Tensor,
    ) -> Residuals:
        """denoiser: the module that is steered; what is said for fewer blocks than it has is repeated as the kind wants
        it. x, timesteps and text as the denoiser gets them. hint: pixels (batch, 3, height, width) in 0..1 of
        `net.factor` pixels a cell, or latents in `net.latent` with, for a `masked` net, a channel of its mask."""
        ...


@dataclass(frozen=True)
class ControlNet:
    """A CONTROL_NET link. `options` are what nodes set, such as the type of a union's control.

    made: the net for a model, where each model that is steered has one of its own; only that one can be leased.
    """

    kind: ControlKind
    ref: ModelRef
    title: str
    config: Mapping[str, Any]
    factor: int = 8  # pixels of the hint per latent cell
    multiple: int = 1  # the sides of the hint are made that of it, by growing
    still: bool = False  # what it says depends on its picture alone: it is asked once for each size
    latent: LatentFormat | None = None  # it looks at latents of that format instead of pixels
    masked: bool = False  # beside the latents, at a mask: 1 where the picture is to be seen
    levels: tuple[float, float] = (1.0, 0.0)  # factor and offset of the pixels (0..1) that the VAE is shown
    options: Mapping[str, Any] = field(default_factory=dict)
    made: Callable[[Model], ControlNet] | None = field(default=None, repr=False, compare=False)

    def of(self, model: Model) -> ControlNet:
        """The net that steers this model."""
        return self if self.made is None else replace(self.made(model), options=self.options)


@dataclass(frozen=True, eq=False)
class Control:
    """A net with its picture. It counts between two shares of the way; what it adds is on top of `previous`."""

    net: ControlNet
    image: torch.Tensor = field(repr=False)  # (batch, height, width, channel) in 0..1
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    vae: Vae | None = None
    previous: Control | None = None
    mask: torch.Tensor | None = None  # (batch, 1, height, width) for a `masked` net; without one, all is seen

    def chain(self) -> Iterator[Control]:
        """This one and those it is on top of."""
        control: Control | None = self
        while control is not None:
            yield control
            control = control.previous


def of_other_model(net: ControlNet, model: Model, spec: FamilySpec, same: Sequence[str]) -> str:
    """A kind's `problem`, by the family and what of the config must be as in the denoiser."""
    if model.family.spec.name != spec.name:
        return spec.title
    fits = all(net.config.get(key) == model.config.get(key) for key in same)
    return "" if fits else f"{spec.title} of other sizes"


def said_by_blocks(net: ControlNet, cells: int) -> int:
    """`numbers_said` of a transformer: one tensor over the picture's tokens for each of its blocks."""
    width = int(net.config["num_attention_heads"]) * int(net.config["attention_head_dim"])
    blocks = int(net.config["num_layers"]) + int(net.config.get("num_single_layers", 0))
    return blocks * width * (cells // 4)


def added(first: Residuals, second: Residuals) -> Residuals:
    """What two nets say together. Where only one says something, that."""
    return {place: _sums(first.get(place, ()), second.get(place, ())) for place in {**first, **second}}


def _sums(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each pair once: Flux' 57 blocks are given few tensors, and 25 MB for each at 1024 px."""
    made: dict[tuple[int, int], torch.Tensor] = {}
    for a, b in zip(first, second, strict=False):
        if (id(a), id(b)) not in made:
            made[id(a), id(b)] = a + b
    both = [made[id(a), id(b)] for a, b in zip(first, second, strict=False)]
    return [*both, *first[len(both) :], *second[len(both) :]]
