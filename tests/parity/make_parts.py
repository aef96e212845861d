"""The weights of the recorded cases of Flux and SD3: parts in files of their own, of real layout and width but few
blocks. T5 has all its blocks, those behind the second of zeros, which hand on what they are given: 9.5 GB to read, 0.9
GB on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.parity.make_weights import Array, lora_pair, make_checkpoint, write_tensors

# {file: (its layout, the SHA-256 of what must come out)}
PARTS = {
    "vae/ref_ae16.safetensors": ("ae16", "bbc62bc3a006c33e44613a8b206477c1cebfe544790b054c8ebc87b112344c22"),
    "diffusion_models/ref_flux_1d2s.safetensors": (
        "flux_1d2s",
        "3736ccc91bd8351d3fc651c5b5b26575e4f7f6f89b0623f08c082c9545b9d09f",
    ),
    "diffusion_models/ref_sd3_d6.safetensors": (
        "sd3_d6",
        "455d858429f27dbaebd70150fd8aaa1b7fe5bf55bfb0fea771aba6020a0cd8bd",
    ),
    "text_encoders/ref_clip_g.safetensors": (
        "clip_g",
        "6583a325da2eb28d8ff87546e61c4cde16a515938d2f07039f7c9b65c73a5646",
    ),
    "text_encoders/ref_clip_l.safetensors": (
        "clip_l",
        "b291599f210d9bcbac9a64f0d76ffc7a9cceac4cc353506031fd37053487d0c4",
    ),
    "text_encoders/ref_t5xxl_sparse.safetensors": ("t5xxl", ""),  # not recorded, of its size
}
LORA = "loras/ref_flux_kohya.safetensors"
LORA_DIGEST = "a980cd618d533d3c4977610ccdd0334241259bb084e940187ebe77c29e423bb9"
WIDTH = 3072  # of Flux


def make_part(models: Path, name: str) -> Path:
    """Make that file if it is not there yet."""
    path = models / name
    if path.is_file():
        return path
    if name == LORA:
        write_tensors(path, _flux_lora(path.name))
    else:
        keep: dict[str, Callable[[str], bool]] = {"t5xxl": _in_two_blocks}
        layout, _ = PARTS[name]
        make_checkpoint(path, layout, keep.get(layout, lambda tensor: True))
    return path


def _in_two_blocks(name: str) -> bool:
    return not name.startswith("encoder.block.") or int(name.split(".")[2]) < 2


def _flux_lora(file: str) -> dict[str, Array]:
    """kohya's names, rank 4, alpha 2, on every layer of the blocks."""
    out: dict[str, Array] = {}
    for name, to, of in _flux_targets():
        base = f"lora_unet_{name}"
        down, up = lora_pair(file, name, to * WIDTH, of * WIDTH, 0, 4, 0.6)
        out[f"{base}.lora_down.weight"], out[f"{base}.lora_up.weight"] = down, up
        out[f"{base}.alpha"] = np.array(2.0, np.float16)
    return out


def _flux_targets() -> Iterator[tuple[str, int, int]]:
    """(layer, widths out, widths in)."""
    for stream in ("img", "txt"):
        block = f"double_blocks_0_{stream}"
        yield from ((f"{block}_attn_qkv", 3, 1), (f"{block}_attn_proj", 1, 1))
        yield from ((f"{block}_mlp_0", 4, 1), (f"{block}_mlp_2", 1, 4), (f"{block}_mod_lin", 6, 1))
    for number in range(2):
        block = f"single_blocks_{number}"
        yield from ((f"{block}_linear1", 7, 1), (f"{block}_linear2", 1, 5), (f"{block}_modulation_lin", 3, 1))
