"""Pictures per second of full-size models on a GPU: WD-eva02-large (ONNX) and Florence-2-large, with random weights.

    python -m tests.bench.captioning_gpu [wd|florence|both]

It needs a CUDA device and says so where there is none: on a CPU one picture takes seconds and the figures mean nothing.
Batch 1, 16 and 64; what bounds them is told by the share of the time that the model itself runs, without reading files.
Random weights cost what trained ones do. The WD model is made by torch.onnx from a ViT of EVA02-large's size (24 layers
of 1024, 1024 places), which its own rotary embedding and gated layers exceed by some percent.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCHES = (1, 16, 64)


def main(what: str = "both") -> int:
    if not torch.cuda.is_available():
        print("This benchmark needs a CUDA device; there is none here. Nothing was measured.")
        return 1
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        if what in ("wd", "both"):
            _wd(Path(folder))
        if what in ("florence", "both"):
            _florence()
    return 0


def _wd(folder: Path) -> None:
    import onnxruntime as ort
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        **{"hidden_size": 1024, "intermediate_size": 2730, "num_hidden_layers": 24, "num_attention_heads": 16},
        **{"image_size": 448, "patch_size": 14, "num_labels": 10861},
    )
    module: Any = ViTForImageClassification(config).eval()
    path = folder / "model.onnx"
    example = torch.zeros(1, 3, 448, 448)
    torch.onnx.export(module, (example,), str(path), input_names=["input"], dynamic_axes={"input": {0: "batch"}})
    session = ort.InferenceSession(str(path), providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    print(f"WD-eva02-large's size, onnxruntime on {session.get_providers()[0]}")
    for batch in BATCHES:
        values = np.random.default_rng(0).random((batch, 3, 448, 448), np.float32)
        _tell(batch, lambda values=values: session.run(None, {"input": values}))


def _florence() -> None:
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    vision = {"depths": [1, 1, 9, 1], "embed_dim": [256, 512, 1024, 2048], "num_heads": [8, 16, 32, 64]}
    text = {"model_type": "bart", "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "vocab_size": 51328}
    config = Florence2Config(
        vision_config={**vision, "num_groups": [8, 16, 32, 64], "projection_dim": 1024}, text_config=text
    )
    with torch.device("cuda"):
        module: Any = Florence2ForConditionalGeneration(config).eval().to(torch.bfloat16)
    print("Florence-2-large, bfloat16, 100 new tokens, 3 beams")
    for batch in BATCHES:
        pixels = torch.rand(batch, 3, 768, 768, device="cuda", dtype=torch.bfloat16)
        ids = torch.full((batch, 577 + 12), 51289, device="cuda")
        ids[:, 577:] = 100

        def run(pixels: torch.Tensor = pixels, ids: torch.Tensor = ids) -> None:
            with torch.no_grad():
                module.generate(input_ids=ids, pixel_values=pixels, num_beams=3, min_new_tokens=100, max_new_tokens=100)
            torch.cuda.synchronize()

        _tell(batch, run)
        print(f"      peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def _tell(batch: int, run: Callable[[], object]) -> None:
    run()
    start, times = time.perf_counter(), 0
    while time.perf_counter() - start < 10:
        run()
        times += 1
    print(f"  batch {batch:3}: {batch * times / (time.perf_counter() - start):8.1f} pictures/s", flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
