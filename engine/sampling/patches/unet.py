"""The blocks of diffusers' UNet2DConditionModel as patches count them, and hooks that change what flows between them.

Input blocks are counted as in the LDM code of old: 0 is the first convolution, then one for each layer (a residual
block with its attention) and one for each change of size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from engine.errors import GraphError
from engine.families.base import Model

Change = Callable[[Tensor], Tensor]
# (hidden state, the latent's size) -> what a layer gets instead and how its answer is undone, or None
Around = Callable[[Tensor, "Size"], tuple[Tensor, Change] | None]


class NeedsUNet(GraphError):
    en = "{node} works on UNets (Stable Diffusion 1.x, 2.x, XL), but {model} is of another kind. Take the node out."
    zh = "{node} 仅适用于 UNet（Stable Diffusion 1.x、2.x、XL），但 {model} 是其他类型的模型。请移除该节点。"


class NoMiddleAttention(GraphError):
    en = "{node} acts on the attention of the UNet's middle block, but {model} has none there. Take the node out."
    zh = "{node} 作用于 UNet 中间块的注意力，但 {model} 在该处没有注意力。请移除该节点。"


def need_unet(model: Model, node: str) -> None:
    """Raises NeedsUNet by the model's config; nothing is loaded."""
    if "up_block_types" not in model.config:
        raise NeedsUNet(node=node, model=model.ref.title)


def need_middle_attention(model: Model, node: str) -> None:
    need_unet(model, node)
    if not any(name.startswith("mid_block.attentions.") for name in model.modules):
        raise NoMiddleAttention(node=node, model=model.ref.title)


@dataclass(frozen=True)
class InputBlock:
    """Its first module takes the hidden state, its last one gives it."""

    first: nn.Module
    last: nn.Module


def input_blocks(module: nn.Module) -> list[InputBlock]:
    unet = cast(UNet2DConditionModel, module)
    blocks = [InputBlock(unet.conv_in, unet.conv_in)]
    for down in cast(Any, unet.down_blocks):
        attentions = getattr(down, "attentions", None) or [None] * len(down.resnets)
        blocks += [InputBlock(r, r if a is None else a) for r, a in zip(down.resnets, attentions, strict=True)]
        blocks += [InputBlock(layer, layer) for layer in down.downsamplers or ()]
    return blocks


def middle(module: nn.Module) -> nn.Module:
    return cast(nn.Module, cast(UNet2DConditionModel, module).mid_block)


def middle_self_attentions(module: nn.Module) -> list[Attention]:
    """Of each transformer block there: one in SD 1.x, ten in SDXL."""
    found = [block for attention in cast(Any, middle(module)).attentions for block in attention.transformer_blocks]
    return [block.attn1 for block in found]


@dataclass(frozen=True)
class Join:
    """Where an output block begins: `resnet` takes the hidden state (its first `width` channels) and a skip behind."""

    resnet: nn.Module
    width: int


def joins(module: nn.Module) -> list[Join]:
    unet = cast(Any, module)
    width, found = unet.mid_block.resnets[-1].out_channels, []
    for up in unet.up_blocks:
        for resnet in up.resnets:
            found.append(Join(resnet, width))
            width = resnet.out_channels
    return found


def entering(module: nn.Module, change: Change) -> RemovableHandle:
    """Changes the hidden state that a module is given (its first positional argument)."""
    return module.register_forward_pre_hook(lambda layer, args: (change(args[0]), *args[1:]))


def leaving(module: nn.Module, change: Change) -> RemovableHandle:
    """Changes the hidden state that a module gives: alone, or first of a tuple."""

    def changed(layer: nn.Module, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return module.register_forward_hook(changed)


@contextmanager
def removing(*handles: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def processing(attentions: list[Attention], processor: Any) -> Iterator[None]:
    """`processor(attn, hidden_states, encoder_hidden_states=None, ...)` in place of what they do."""
    before = [attention.processor for attention in attentions]
    try:
        for attention in attentions:
            attention.processor = processor
        yield
    finally:
        for attention, own in zip(attentions, before, strict=True):
            attention.processor = own


@dataclass
class Size:
    """Of the latent that the UNet is called with."""

    height: int = 0
    width: int = 0

    def level(self, tokens: int) -> int | None:
        """How many times both sides were halved, without a rest, for a layer of so many tokens."""
        height, width, level = self.height, self.width, 0
        while height * width > tokens and height % 2 == 0 and width % 2 == 0:
            height, width, level = height // 2, width // 2, level + 1
        return level if height * width == tokens else None


@contextmanager
def around_self_attention(module: nn.Module, before: Around) -> Iterator[None]:
    """`before(hidden state, size)` may say what self-attention gets in its place, and how its answer becomes that of
    the hidden state: (batch, tokens, width) both. None leaves a layer as it is."""
    size = Size()
    undone: dict[nn.Module, Change] = {}

    def called(unet: nn.Module, args: Any) -> None:
        size.height, size.width = args[0].shape[-2:]

    def enter(layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        found = before(hidden, size)
        if found is None:
            return args, kwargs
        changed, undone[layer] = found
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    def leave(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        undo = undone.pop(layer, None)
        return output if undo is None else undo(output)

    handles = [module.register_forward_pre_hook(called)]
    for block in transformer_blocks(module):
        handles.append(block.attn1.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(block.attn1.register_forward_hook(leave))
    with removing(*handles):
        yield


def transformer_blocks(module: nn.Module) -> list[Any]:
    """Each with self-attention `attn1` and attention to the prompt `attn2`, in the order in which they run."""
    unet = cast(Any, module)
    places = [*unet.down_blocks, *([] if unet.mid_block is None else [unet.mid_block]), *unet.up_blocks]
    return [block for place in places for attention in getattr(place, "attentions", None) or ()
            for block in attention.transformer_blocks]  # fmt: skip
