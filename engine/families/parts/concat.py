"""Pictures and masks that lie beside a latent as more channels of it. (batch, c, height, width), in latent cells."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from engine.errors import GraphError
from engine.families.base import Model

CELL = 8  # pixels of a mask along a side of a latent cell


class PictureOfOtherModel(GraphError):
    en = (
        "{model} is {title} and looks at latents of {need} channels, but the picture beside the prompt has {got}. "
        "Encode it with the VAE of {title}."
    )
    zh = "{model} 是 {title}，它查看 {need} 通道的潜变量，但提示词所附图片有 {got} 个通道。请用 {title} 的 VAE 编码。"


def checked(picture: Tensor, model: Model) -> Tensor:
    """A latent that the model is shown beside its own. Raises PictureOfOtherModel."""
    need, got = model.latent.channels, picture.shape[1]
    if got != need:
        raise PictureOfOtherModel(model=model.ref.title, title=model.family.spec.title, need=need, got=got)
    return picture


def fitted(image: Tensor, height: int, width: int) -> Tensor:
    """Cut around the middle to those proportions, then scaled."""
    old_height, old_width = image.shape[-2:]
    x = y = 0
    if old_width * height > width * old_height:
        x = round((old_width - width * old_height / height) / 2)
    elif old_width * height < width * old_height:
        y = round((old_height - height * old_width / width) / 2)
    cut = image[..., y : old_height - y, x : old_width - x]
    return cut if cut.shape[-2:] == (height, width) else F.interpolate(cut, size=(height, width), mode="bilinear")


def mask_in_cells(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask of any size as the 64 pixels of each latent cell: (batch, 64, height, width)."""
    pixels = fitted(mask, height * CELL, width * CELL)
    cells = pixels.reshape(len(pixels), height, CELL, width, CELL)
    return cells.permute(0, 2, 4, 1, 3).reshape(len(pixels), CELL * CELL, height, width)


def repeat_to(tensor: Tensor, rows: int) -> Tensor:
    """The first axis repeated as often as it takes and cut to `rows`."""
    return tensor.repeat(-(-rows // len(tensor)), *[1] * (tensor.ndim - 1))[:rows]
