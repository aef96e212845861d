"""Pictures, masks and latents laid over one another, and alpha channels joined and split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.errors import GraphError
from engine.families.parts.resizing import repeated_to, resized
from engine.graph.limits import MAX_SIDE
from engine.graph.node import IMAGE, LATENT, MASK, In, NodeContext, Out, node
from engine.nodes.latent import PIXELS_PER_CELL, of_one_model

Offset = Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE, step=1)]
CellOffset = Annotated[int, In("INT", default=0, min=0, max=MAX_SIDE, step=8)]
Resize = Annotated[bool, In("BOOLEAN", default=False)]
OptionalMask = Annotated[Tensor | None, In("MASK")]


@node(
    "ImageCompositeMasked",
    title="ImageCompositeMasked",
    title_zh="按遮罩合成图像",
    category="image",
    outputs=[Out("IMAGE")],
)
def image_composite_masked(
    ctx: NodeContext,
    destination: IMAGE,
    source: IMAGE,
    x: Offset,
    y: Offset,
    resize_source: Resize,
    mask: OptionalMask = None,
) -> tuple[Tensor]:
    """Where the mask is 1, the source. A destination with an alpha channel lends an opaque one to the source."""
    below = destination.movedim(-1, 1).clone()
    above = with_channels(source, destination.shape[-1]).movedim(-1, 1)
    return (_laid_over(below, above, x, y, mask, resize_source).movedim(1, -1),)


@node(
    "LatentCompositeMasked",
    title="LatentCompositeMasked",
    title_zh="按遮罩合成潜变量",
    category="latent",
    outputs=[Out("LATENT")],
)
def latent_composite_masked(
    ctx: NodeContext,
    destination: LATENT,
    source: LATENT,
    x: CellOffset,
    y: CellOffset,
    resize_source: Resize,
    mask: OptionalMask = None,
) -> tuple[dict[str, Any]]:
    below = destination["samples"].clone()
    of_one_model(below, source["samples"])
    x, y = x // PIXELS_PER_CELL, y // PIXELS_PER_CELL
    return ({**destination, "samples": _laid_over(below, source["samples"], x, y, mask, resize_source)},)


@node("LatentComposite", title="Latent Composite", title_zh="合成潜变量", category="latent", outputs=[Out("LATENT")])
def latent_composite(
    ctx: NodeContext, samples_to: LATENT, samples_from: LATENT, x: CellOffset, y: CellOffset, feather: CellOffset
) -> tuple[dict[str, Any]]:
    """`feather` pixels fade at those sides of the second that lie within the first."""
    x, y, feather = (value // PIXELS_PER_CELL for value in (x, y, feather))
    below = samples_to["samples"].clone()
    of_one_model(below, samples_from["samples"])
    whole = repeated_to(samples_from["samples"], len(below))
    above = whole[:, :, : max(0, below.shape[2] - y), : max(0, below.shape[3] - x)]
    down = _ramps(above.shape[2], feather, y != 0, y + whole.shape[2] < below.shape[2])
    across = _ramps(above.shape[3], feather, x != 0, x + whole.shape[3] < below.shape[3])
    mask = down[:, None] * across[None]
    under = below[:, :, y : y + above.shape[2], x : x + above.shape[3]]
    under.copy_(above * mask + under * (1 - mask))
    return ({**samples_to, "samples": below},)


class MasksDiffer(GraphError):
    en = "{above} masks can't be laid over {below}: there must be one, or as many."
    zh = "无法将 {above} 个遮罩叠加到 {below} 个遮罩上：数量必须为一个或相等。"


_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "multiply": lambda a, b: a * b,
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "and": lambda a, b: (a.round().bool() & b.round().bool()).float(),
    "or": lambda a, b: (a.round().bool() | b.round().bool()).float(),
    "xor": lambda a, b: (a.round().bool() ^ b.round().bool()).float(),
}


@node("MaskComposite", title="MaskComposite", title_zh="合成遮罩", category="mask", outputs=[Out("MASK")])
def mask_composite(
    ctx: NodeContext,
    destination: MASK,
    source: MASK,
    x: Offset,
    y: Offset,
    operation: Annotated[str, In(list(_OPERATIONS))],
) -> tuple[Tensor]:
    below = destination.reshape(-1, *destination.shape[-2:]).clone()
    above = source.reshape(-1, *source.shape[-2:])
    if len(above) not in (1, len(below)):
        raise MasksDiffer(below=len(below), above=len(above))
    under = below[:, y : y + above.shape[1], x : x + above.shape[2]]
    under.copy_(_OPERATIONS[operation](under, above[:, : under.shape[1], : under.shape[2]]))
    return (below.clamp(0, 1),)


@node(
    "SplitImageWithAlpha",
    title="Split Image with Alpha",
    title_zh="分离图像与 Alpha",
    category="mask/compositing",
    outputs=[Out("IMAGE"), Out("MASK")],
)
def split_image_with_alpha(ctx: NodeContext, image: IMAGE) -> tuple[Tensor, Tensor]:
    """The mask is 1 where the picture is transparent; all 0 without an alpha channel."""
    alpha = image[..., 3] if image.shape[-1] > 3 else torch.ones_like(image[..., 0])
    return image[..., :3], 1.0 - alpha


@node(
    "JoinImageWithAlpha",
    title="Join Image with Alpha",
    title_zh="合并图像与 Alpha",
    category="mask/compositing",
    outputs=[Out("IMAGE")],
)
def join_image_with_alpha(ctx: NodeContext, image: IMAGE, alpha: MASK) -> tuple[Tensor]:
    """Transparent where the mask is 1; as many pictures as there are masks."""
    count = min(len(image), len(alpha.reshape(-1, *alpha.shape[-2:])))
    mask = fitted_mask(alpha, image.shape[1], image.shape[2])[:count]
    return (torch.cat((image[:count, ..., :3], 1.0 - mask.movedim(1, -1)), dim=-1),)


# Porter and Duff's operators and blends, on colours times alpha: {mode: (picture, alpha)} of source s and destination
# d, whose alphas are a and b. OVERLAY's second half is as Android writes it, which is what the graph's users have.
_PorterDuff = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
_PORTER_DUFF: dict[str, _PorterDuff] = {
    "ADD": lambda s, a, d, b: ((s + d).clamp(0, 1), (a + b).clamp(0, 1)),
    "CLEAR": lambda s, a, d, b: (torch.zeros_like(d), torch.zeros_like(b)),
    "DARKEN": lambda s, a, d, b: ((1 - b) * s + (1 - a) * d + torch.minimum(s, d), a + b - a * b),
    "DST": lambda s, a, d, b: (d, b),
    "DST_ATOP": lambda s, a, d, b: (a * d + (1 - b) * s, a),
    "DST_IN": lambda s, a, d, b: (d * a, a * b),
    "DST_OUT": lambda s, a, d, b: ((1 - a) * d, (1 - a) * b),
    "DST_OVER": lambda s, a, d, b: (d + (1 - b) * s, b + (1 - b) * a),
    "LIGHTEN": lambda s, a, d, b: ((1 - b) * s + (1 - a) * d + torch.maximum(s, d), a + b - a * b),
    "MULTIPLY": lambda s, a, d, b: (s * d, a * b),
    "OVERLAY": lambda s, a, d, b: (
        torch.where(2 * d < b, 2 * s * d, a * b - 2 * (b - s) * (a - d)),
        a + b - a * b,
    ),
    "SCREEN": lambda s, a, d, b: (s + d - s * d, a + b - a * b),
    "SRC": lambda s, a, d, b: (s, a),
    "SRC_ATOP": lambda s, a, d, b: (b * s + (1 - a) * d, b),
    "SRC_IN": lambda s, a, d, b: (s * b, a * b),
    "SRC_OUT": lambda s, a, d, b: ((1 - b) * s, (1 - b) * a),
    "SRC_OVER": lambda s, a, d, b: (s + (1 - a) * d, a + (1 - a) * b),
    "XOR": lambda s, a, d, b: ((1 - b) * s + (1 - a) * d, (1 - b) * a + (1 - a) * b),
}


@node(
    "PorterDuffImageComposite",
    title="Porter-Duff Image Composite",
    title_zh="Porter-Duff 图像合成",
    category="mask/compositing",
    outputs=[Out("IMAGE"), Out("MASK")],
)
def porter_duff_image_composite(
    ctx: NodeContext,
    source: IMAGE,
    source_alpha: MASK,
    destination: IMAGE,
    destination_alpha: MASK,
    mode: Annotated[str, In(list(_PORTER_DUFF), default="DST")],
) -> tuple[Tensor, Tensor]:
    """Masks are 1 where a picture is transparent. The source is brought to the size of the destination."""
    height, width = destination.shape[1:3]
    count = min(len(source), len(source_alpha), len(destination), len(destination_alpha))
    if source.shape[1:3] != (height, width):
        source = resized(source.movedim(-1, 1), width, height, "bicubic", "center").movedim(1, -1)
    source = with_channels(source, destination.shape[-1])[:count]
    a, b = (1 - _scaled_mask(mask, width, height)[:count] for mask in (source_alpha, destination_alpha))
    picture, alpha = _PORTER_DUFF[mode](source * a, a, destination[:count] * b, b)
    picture = torch.where(alpha > 1e-5, picture / alpha, torch.zeros_like(picture))
    return picture.clamp(0, 1), 1 - alpha[..., 0]


def with_channels(image: Tensor, count: int) -> Tensor:
    """(..., channels) cut to `count`, or with opaque alpha to it."""
    missing = count - image.shape[-1]
    return functional.pad(image, (0, missing), value=1.0) if missing > 0 else image[..., :count]


def _laid_over(below: Tensor, above: Tensor, x: int, y: int, mask: Tensor | None, resize: bool) -> Tensor:
    """`below` (batch, channel, height, width) changed where `above` lies on it."""
    if resize:
        above = functional.interpolate(above, size=below.shape[-2:], mode="bilinear")
    above = repeated_to(above, len(below))
    weight = torch.ones(len(above), 1, *above.shape[-2:])
    if mask is not None:
        weight = repeated_to(fitted_mask(mask, above.shape[-2], above.shape[-1]), len(above))
    under = below[..., y : y + above.shape[-2], x : x + above.shape[-1]]
    height, width = under.shape[-2:]
    weight = weight[..., :height, :width].reshape(len(above), *(1,) * (above.ndim - 3), height, width)
    under.copy_(above[..., :height, :width] * weight + under * (1 - weight))
    return below


def fitted_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """(batch, 1, height, width)"""
    mask = mask.reshape(-1, 1, *mask.shape[-2:])
    return functional.interpolate(mask, size=(height, width), mode="bilinear")


def _scaled_mask(mask: Tensor, width: int, height: int) -> Tensor:
    """(batch, height, width, 1)"""
    mask = mask.reshape(-1, 1, *mask.shape[-2:])
    if mask.shape[-2:] != (height, width):
        mask = resized(mask, width, height, "bicubic", "center")
    return mask.movedim(1, -1)


def _ramps(length: int, reach: int, at_start: bool, at_end: bool) -> Tensor:
    """Ones that rise from 1 / reach at the ends asked for."""
    weights = torch.ones(length)
    reach = max(0, reach)
    for step in range(min(reach, length)):
        if at_start:
            weights[step] *= (step + 1) / reach
        if at_end:
            weights[length - 1 - step] *= (step + 1) / reach
    return weights
