"""How long a checkpoint takes to load, beside filling as much fresh memory, and how much memory that needs.

    python -m tests.bench.loading FILE.safetensors [threads]

Loading is bounded by the memory's pages being made (the kernel zeroes each), so the ratio to filling memory is what
tells; on a busy machine read the CPU seconds. The peak is that of the process over what it had before.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from engine.weights.header import read_header
from engine.weights.load import read_tensors


def main(path: Path, threads: int) -> None:
    torch.set_num_threads(1)
    header = read_header(path)
    start_peak = _peak()
    weights = _timed("load as float32", lambda: read_tensors(header, dtype=torch.float32, threads=threads))
    nbytes = sum(tensor.nbytes for tensor in weights.values())
    print(f"peak over what was there before: {(_peak() - start_peak) / nbytes:.3f} x {nbytes / 1e9:.2f} GB of weights")
    del weights
    _timed("fill fresh memory", lambda: _fill(nbytes, threads))


def _timed(what: str, work: Callable[[], Any]) -> Any:
    wall, before = time.perf_counter(), os.times()
    result = work()
    after = os.times()
    cpu = after.user - before.user + after.system - before.system
    print(f"{what}: {time.perf_counter() - wall:.2f} s, {cpu:.2f} s of CPU")
    return result


def _fill(nbytes: int, threads: int) -> list[torch.Tensor]:
    sizes = [nbytes // 4 // 64] * 64
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(torch.ones, sizes))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else min(4, os.cpu_count() or 1))
