"""Deep shrink: the inner part of a UNet at a lower resolution for a part of the way, so that pictures larger than the
training's have one composition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from engine.families.parts.patch import Acting, Now
from engine.sampling.patches.unet import entering, input_blocks, leaving, middle, removing

Resize = Callable[[Tensor, int, int], Tensor]  # (latent, width, height)
Size = tuple[int, int]


def downscale(
    block: int, factor: float, start_sigma: float, end_sigma: float, after_skip: bool, down: Resize, up: Resize
) -> Acting:
    """Behind input block number `block` the hidden state is made smaller by `factor` while start_sigma >= sigma >=
    end_sigma; where it meets a skip of another size on the way up, it is brought to that size. after_skip: the skip of
    that block itself stays large."""

    def shrink_now(now: Now) -> Callable[[Tensor], Tensor]:
        def shrink(hidden: Tensor) -> Tensor:
            if not end_sigma <= now.sigma <= start_sigma:
                return hidden
            height, width = hidden.shape[-2:]
            return down(hidden, max(1, round(width / factor)), max(1, round(height / factor)))

        return shrink

    @contextmanager
    def acting(module: nn.Module, now: Now) -> Iterator[None]:
        blocks = input_blocks(module)
        if block >= len(blocks):
            yield
            return
        if after_skip:
            following = blocks[block + 1].first if block + 1 < len(blocks) else middle(module)
            shrinking = entering(following, shrink_now(now))
        else:
            shrinking = leaving(blocks[block].last, shrink_now(now))
        with removing(shrinking), _fitting(module, up):
            yield

    return acting


@contextmanager
def _fitting(module: nn.Module, up: Resize) -> Iterator[None]:
    """On the way up, the hidden state has the size of the skip it meets, and of the next one where it grows."""
    unet: Any = module
    sizes: list[Size] = []  # of all skips that are still to be met, in the order they were made

    def first(layer: nn.Module, args: Any, output: Tensor) -> None:
        sizes[:] = [_size(output)]

    def more(layer: nn.Module, args: Any, output: Any) -> None:
        sizes.extend(_size(skip) for skip in output[1])

    def fit(hidden: Tensor) -> Tensor:
        size = sizes.pop()
        return hidden if _size(hidden) == size else up(hidden, size[1], size[0])

    def enter(layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        below = len(sizes) - len(kwargs["res_hidden_states_tuple"])
        growing = sizes[below - 1] if below > 0 else None
        return args, {**kwargs, "hidden_states": fit(kwargs["hidden_states"]), "upsample_size": growing}

    handles = [unet.conv_in.register_forward_hook(first)]
    handles += [block.register_forward_hook(more) for block in unet.down_blocks]
    handles += [block.register_forward_pre_hook(enter, with_kwargs=True) for block in unet.up_blocks]
    for block in unet.up_blocks:
        lasts = getattr(block, "attentions", None) or block.resnets
        handles += [leaving(layer, fit) for layer in list(lasts)[:-1]]
    with removing(*handles):
        yield


def _size(tensor: Tensor) -> Size:
    return tensor.shape[-2], tensor.shape[-1]
