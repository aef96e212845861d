"""Makes the weights that the recorded cases were made with: random, but of real layout and size (SD 1.5: 2.1 GB).

    python -m tests.parity.make_weights FOLDER

Each tensor is drawn from numpy's PCG64, seeded by the SHA-256 of "file name/tensor name": every machine makes the same
bytes, in any order. Spreads keep the variance from layer to layer, a few raised so that outputs stay finite and answer
to prompt, timestep and picture. Needs numpy only; safetensors files are written by hand.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
Array = NDArray[np.generic]
Shape = tuple[int, ...]

CHECKPOINT = "checkpoints/ref_sd15.safetensors"
SDXL = "checkpoints/ref_sdxl.safetensors"  # 7 GB: made only by the test that wants it
CONTROLNET = "controlnet/ref_cn15.safetensors"  # as well; make_checkpoint(path, "controlnet15")
CONTROLNET_DIGEST = "fe4bc565df02c6a3dae0f8e022b066a66f6f280046ddcadb7413d86a7816b077"
# SHA-256 of what must come out.
FILES = {
    CHECKPOINT: "0ed2a6cd79d07e846e84457e8788a03e37b50050877fa1bde405db0f118d0f10",
    "loras/ref_sd15_kohya.safetensors": "268f27539cd5d0adfd40fd370bc80a82fdcaaa4910f4ed21f8b4bd113a58c3f1",
    "loras/ref_sd15_peft.safetensors": "549ef4d646f3785011097726b11d3b776b777c48e1b6b6a84105e56706154b67",
    "loras/ref_sd15_diffusers_old.safetensors": "67dd5e0f71818c4752139d6aaa9d2af819583d0b6d04ef18ab49c65640a10660",
    "loras/ref_sd15_ldm_names.safetensors": "a5b560b26cb3d7bcc026a13086743e1cb38f559df47ed3272fad0e5968e499d0",
    "embeddings/ref_ti.safetensors": "7a8ad01ccaa68ff7671347d04fba435dc96357b5bd9831fe5b303e8301bd8c5b",
}
_NAMES = {"float16": "F16", "float32": "F32", "int64": "I64"}


def make_all(models: Path) -> Path:
    """Make the files that are not there yet; returns `models`, ComfyUI's folder of models."""
    if not (models / CHECKPOINT).is_file():
        make_checkpoint(models / CHECKPOINT)
    if not all((models / name).is_file() for name in FILES):
        make_loras(models / "loras")
        vectors = _normal("ref_ti", "e", (2, 768), 0.5)
        write_tensors(models / "embeddings" / "ref_ti.safetensors", {"emb_params": vectors})
    return models


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_checkpoint(path: Path, model: str = "sd15", keep: Callable[[str], bool] = lambda name: True) -> None:
    """Tensors that are not kept are zeros, which are holes of the file and take no room on the disk."""
    layout = json.loads(gzip.decompress((HERE / "layouts" / f"{model}.json.gz").read_bytes()))
    shapes: dict[str, Shape] = {name: tuple(shape) for name, shape in layout}
    kinds = {name: "int64" if name.endswith("position_ids") else "float16" for name in shapes}

    def tensors() -> Iterator[tuple[str, Array | None]]:
        for name, shape in shapes.items():
            if not keep(name):
                yield name, None
            elif kinds[name] == "int64":
                yield name, np.arange(shape[-1], dtype=np.int64).reshape(shape)
            else:
                std, mean = _spread(name, shape)
                yield name, _normal(path.name, name, shape, std, mean).astype(np.float16)

    _write_stream(path, {name: (kinds[name], shape) for name, shape in shapes.items()}, tensors())


def make_loras(folder: Path) -> None:
    """One LoRA in kohya's names (rank 4, alpha 2), one in three other dialects (attention only, rank 8, no alpha)."""
    write_tensors(folder / "ref_sd15_kohya.safetensors", _kohya("ref_sd15_kohya.safetensors"))
    peft = _peft("ref_sd15_peft.safetensors")
    write_tensors(folder / "ref_sd15_peft.safetensors", peft)
    unet = {key.removeprefix("unet."): value for key, value in peft.items() if key.startswith("unet.")}
    write_tensors(folder / "ref_sd15_diffusers_old.safetensors", dict(_renamed(unet, _old_key)))
    write_tensors(folder / "ref_sd15_ldm_names.safetensors", dict(_renamed(unet, _ldm_key)))


def _kohya(file: str) -> dict[str, Array]:
    out: dict[str, Array] = {}

    def add(prefix: str, name: str, to: int, of: int, kernel: int) -> None:
        down, up = lora_pair(file, name, to, of, kernel, 4, 0.6)
        base = prefix + name.replace(".", "_")
        out[f"{base}.lora_down.weight"], out[f"{base}.lora_up.weight"] = down, up
        out[f"{base}.alpha"] = np.array(2.0, np.float16)

    for name, to, of, kernel in _unet_targets():
        add("lora_unet_", name, to, of, kernel)
    for name, to, of in _text_targets():
        add("lora_te_", name, to, of, 0)
    return out


def _peft(file: str) -> dict[str, Array]:
    out: dict[str, Array] = {}
    unet = [(f"unet.{n}", n, to, of) for n, to, of, kernel in _unet_targets() if not kernel and ".ff." not in n]
    text = [(f"text_encoder.{n}", n, to, of) for n, to, of in _text_targets() if ".mlp." not in n]
    for key, name, to, of in (*unet, *text):
        down, up = lora_pair(file, name, to, of, 0, 8, 0.3)
        out[f"{key}.lora_A.weight"], out[f"{key}.lora_B.weight"] = down, up
    return out


def _renamed(tensors: Mapping[str, Array], rename: Callable[[str, bool], str]) -> Iterator[tuple[str, Array]]:
    for key, tensor in tensors.items():
        module, matrix = key.rsplit(".lora_", 1)
        yield rename(module, matrix.startswith("A")), tensor


def _old_key(module: str, down: bool) -> str:
    """diffusers' attention processors of old."""
    name = f"unet.{module}".replace(".to_", ".processor.to_")
    return f"{name.removesuffix('.0') if name.endswith('.to_out.0') else name}_lora.{'down' if down else 'up'}.weight"


def _ldm_key(module: str, down: bool) -> str:
    parts = module.split(".")
    if parts[0] == "mid_block":
        name = "middle_block.1." + ".".join(parts[3:])
    else:
        level, layer, rest = int(parts[1]), int(parts[3]), ".".join(parts[4:])
        place = f"input_blocks.{1 + 3 * level + layer}" if parts[0] == "down_blocks" else None
        name = f"{place or f'output_blocks.{3 * level + layer}'}.1.{rest}"
    return f"diffusion_model.{name}.lora_{'A' if down else 'B'}.weight"


def _unet_targets() -> Iterator[tuple[str, int, int, int]]:
    """(module, out, in, kernel; 0 is a linear layer) of attention, feed-forward and a few convolutions."""

    def transformer(prefix: str, width: int) -> Iterator[tuple[str, int, int, int]]:
        yield f"{prefix}.proj_in", width, width, 1
        yield f"{prefix}.proj_out", width, width, 1
        block = f"{prefix}.transformer_blocks.0"
        for attention, context in (("attn1", width), ("attn2", 768)):
            yield f"{block}.{attention}.to_q", width, width, 0
            yield f"{block}.{attention}.to_k", width, context, 0
            yield f"{block}.{attention}.to_v", width, context, 0
            yield f"{block}.{attention}.to_out.0", width, width, 0
        yield f"{block}.ff.net.0.proj", width * 8, width, 0
        yield f"{block}.ff.net.2", width, width * 4, 0

    for level, width in enumerate((320, 640, 1280)):
        for layer in range(2):
            yield from transformer(f"down_blocks.{level}.attentions.{layer}", width)
        yield f"down_blocks.{level}.resnets.1.conv1", width, width, 3
    yield from transformer("mid_block.attentions.0", 1280)
    for level, width in ((1, 1280), (2, 640), (3, 320)):
        for layer in range(3):
            yield from transformer(f"up_blocks.{level}.attentions.{layer}", width)


def _text_targets() -> Iterator[tuple[str, int, int]]:
    for layer in range(12):
        block = f"text_model.encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{block}.self_attn.{name}", 768, 768
        yield f"{block}.mlp.fc1", 3072, 768
        yield f"{block}.mlp.fc2", 768, 3072


def lora_pair(file: str, name: str, to: int, of: int, kernel: int, rank: int, gain: float) -> tuple[Array, Array]:
    down_shape, up_shape = ((kernel, kernel), (1, 1)) if kernel else ((), ())
    std = 1 / np.sqrt(of * (kernel * kernel if kernel else 1))
    down = _normal(file, f"{name}.down", (rank, of, *down_shape), std)
    up = _normal(file, f"{name}.up", (to, rank, *up_shape), gain / np.sqrt(rank))
    return down.astype(np.float16), up.astype(np.float16)


def _spread(name: str, shape: Shape) -> tuple[float, float]:
    """(standard deviation, mean) of a tensor of the model."""
    if not shape:
        return 0.0, 4.6052  # logit_scale
    if "token_embedding" in name or name == "shared.weight" or "relative_attention_bias" in name:
        return 0.5, 0.0
    if "position_embedding" in name or "positional_embedding" in name:
        return 0.1, 0.0
    if "pos_embed" in name:
        return 0.2, 0.0
    if len(shape) == 1:
        return (0.1, 1.0) if name.endswith((".weight", ".scale")) else (0.02, 0.0)  # norms; biases
    gain = 1.0
    if ".attn2.to_q" in name or ".attn2.to_k" in name:
        gain = 1.5  # peaky cross attention, so that prompts matter
    elif ".attn2.to_out" in name:
        gain = 2.0
    elif "mod.lin" in name or "adaLN_modulation" in name:
        gain = 0.5
    elif "SelfAttention.q" in name or "SelfAttention.k" in name:
        gain = 0.35  # T5 does not divide before its softmax
    elif name.endswith("diffusion_model.out.2.weight"):
        gain = 0.35  # predicted noise of about unit size at cfg 7
    elif name.endswith("decoder.conv_out.weight"):
        gain = 0.5  # pictures spread over -1..1
    elif "zero_convs" in name or "middle_block_out" in name:
        gain = 0.5  # what a ControlNet says
    elif "input_hint_block" in name:
        gain = 1.4
    return gain / np.sqrt(int(np.prod(shape[1:]))), 0.0


def _normal(file: str, name: str, shape: Shape, std: float, mean: float = 0.0) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(f"{file}/{name}".encode()).digest()[:16], "little")
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(int(np.prod(shape)), dtype=np.float32)
    drawn *= np.float32(std)
    if mean:
        drawn += np.float32(mean)
    return drawn.reshape(shape)


def write_tensors(path: Path, tensors: Mapping[str, Array]) -> None:
    kinds = {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}
    _write_stream(path, kinds, iter(tensors.items()))


def _write_stream(
    path: Path, kinds: Mapping[str, tuple[str, Shape]], tensors: Iterator[tuple[str, Array | None]]
) -> None:
    """A safetensors file whose tensors come one after another, in the order of `kinds`; None leaves a hole."""
    header: dict[str, object] = {}
    offsets: dict[str, int] = {}
    end = 0
    for name, (dtype, shape) in kinds.items():
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        offsets[name] = start
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        start = file.tell()
        for name, tensor in tensors:
            if tensor is not None:
                file.seek(start + offsets[name])
                file.write(np.ascontiguousarray(tensor).tobytes())
        file.truncate(start + end)
    part.replace(path)


if __name__ == "__main__":
    folder = make_all(Path(sys.argv[1]))
    for name, expected in FILES.items():
        print(name, "as recorded" if digest(folder / name) == expected else "DIFFERS")
