"""How fast the tagging pipeline is beside its own decode calls alone, and beside one picture at a time.

    python -m tests.bench.tagging [pictures] [threads]

The model costs nothing (a mean and a product), so that what is measured is everything around it. Both ratios come from
the same run: the share of the rate of the same decode calls on the same threads, and how many times the rate of the
loop that scripts use (open, pad, resize, one picture a run).
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from engine.models.device import CpuDevice
from engine.workspace import Workspace
from taggers.catalogue import tagger
from taggers.contract import contract
from taggers.job import run
from taggers.onnx_tagger import open_session
from taggers.pixels import load
from taggers.settings import TagSettings
from tests.taggers.conftest import Context
from tests.taggers.synthetic import write_wd


def main(pictures: int = 60, threads: int = 2) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder)).create()
        write_wd(workspace.models / "taggers" / "wd", size=448)
        paths = _draw(workspace.datasets / "set", pictures)
        model = contract(tagger(workspace, "wd"))
        loop = pictures / _seconds(lambda: _loop(workspace, paths))
        with ThreadPoolExecutor(threads) as pool:
            decode = pictures / _seconds(lambda: list(pool.map(lambda p: load(p, model.spec.pixels, 448), paths)))
        settings = TagSettings(dataset="set", tagger="wd", threads=threads, batch_size=8)
        result = run(Context(workspace), settings)
        found = {
            "loop": loop,
            "decode": decode,
            "pipeline": result["pictures_per_second"],
            "of decode": result["pictures_per_second"] / decode,
            "times loop": result["pictures_per_second"] / loop,
        }
    for name, value in found.items():
        print(f"{name:12} {value:8.2f}")
    return found


def _draw(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 255, (96, 64, 3), dtype=np.uint8))
        paths.append(folder / f"{i:04}.jpg")
        small.resize((2048, 3072), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def _loop(workspace: Workspace, paths: list[Path]) -> None:
    session = open_session(tagger(workspace, "wd").file, CpuDevice())
    for path in paths:
        image = Image.open(path).convert("RGB")
        square = Image.new("RGB", (max(image.size),) * 2, (255, 255, 255))
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        values = np.asarray(square.resize((448, 448), Image.Resampling.BICUBIC), np.float32)[None, ..., ::-1]
        session.run.run(None, {"input": np.ascontiguousarray(values)})


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
