"""How fast the tagging pipeline is beside its own decode calls alone, and beside one picture at a time; and its memory.

    python -m tests.bench.tagging [pictures] [threads]        rates
    python -m tests.bench.tagging memory [few] [many]         peak memory with few pictures and with many

The model costs nothing (a mean and a product), so that what is measured is everything around it. Both ratios come from
the same run: the share of the rate of the same decode calls on the same threads, and how many times the rate of the
loop that scripts use (open, pad, resize, one picture a run). On a busy machine the clock says little: the seconds of
CPU that each took are shown as well, and say what the clock would on a quiet one.
"""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import taggers.job
from engine.models.device import CpuDevice
from engine.workspace import Workspace
from taggers.catalogue import tagger
from taggers.contract import contract
from taggers.onnx_tagger import open_session
from taggers.pixels import fitted, load
from taggers.settings import TagSettings
from tests.taggers.conftest import Context
from tests.taggers.synthetic import write_wd

DIFFERENT = 20  # pictures that are drawn; the others have the same pixels


def main(pictures: int = 60, threads: int = 2) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder)).create()
        write_wd(workspace.models / "taggers" / "wd", size=448)
        paths = _draw(workspace.datasets / "set", pictures)
        model = contract(tagger(workspace, "wd"))
        loop = _seconds(lambda: _loop(workspace, paths))
        with ThreadPoolExecutor(threads) as pool:
            decode = _seconds(lambda: list(pool.map(lambda p: load(p, model.spec.pixels, 448), paths)))
        pipeline = _pipeline(workspace, TagSettings(dataset="set", tagger="wd", threads=threads, batch_size=8))
        found = {
            **{f"{name}, pictures/s": pictures / clock for name, (clock, _) in _named(loop, decode, pipeline)},
            **{f"{name}, CPU ms": 1000 * cpu / pictures for name, (_, cpu) in _named(loop, decode, pipeline)},
            "of decode, clock": decode[0] / pipeline[0],
            "of decode, CPU": decode[1] / pipeline[1],
            "times the loop, clock": loop[0] / pipeline[0],
            "times the loop, CPU on these threads": threads * loop[1] / pipeline[1],
            "largest change of a probability by draft decoding": _change(workspace, paths[:8]),
        }
    for name, value in found.items():
        print(f"{name:50} {value:8.4g}")
    return found


def memory(few: int = 1000, many: int = 20_000) -> None:
    """Each in a process of its own, so that one's peak is not the other's."""
    for count in (few, many):
        code = f"from tests.bench.tagging import _peak; _peak({count})"
        subprocess.run([sys.executable, "-c", code], check=True)


def _peak(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder)).create()
        write_wd(workspace.models / "taggers" / "wd", size=32)
        place = workspace.datasets / "set"
        place.mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (24, 24), (i & 255, i >> 8, 90)).save(place / f"{i:06}.png", compress_level=1)
        settings = TagSettings(dataset="set", tagger="wd", threads=2, batch_size=16)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taggers.job.run(Context(workspace, quiet=True), settings)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{count:7} pictures: peak {after / 1024:6.0f} MiB, {(after - before) / 1024:5.0f} above the start", flush=True
    )


def _named(*rows: tuple[float, float]) -> list[tuple[str, tuple[float, float]]]:
    return list(zip(("loop", "decode", "pipeline"), rows, strict=True))


def _pipeline(workspace: Workspace, settings: TagSettings) -> tuple[float, float]:
    """Clock and CPU seconds of the pass itself: looking through the folder comes before it and once only."""
    whole = taggers.job._pass
    took: list[tuple[float, float]] = []

    def measured(*arguments: Any) -> None:
        took.append(_seconds(lambda: whole(*arguments)))

    taggers.job._pass = measured
    try:
        taggers.job.run(Context(workspace), settings)
    finally:
        taggers.job._pass = whole
    return took[0]


def _change(workspace: Workspace, paths: list[Path]) -> float:
    """The largest difference that decoding at a smaller scale makes to any probability."""
    model = contract(tagger(workspace, "wd"))
    session = open_session(tagger(workspace, "wd").file, CpuDevice())
    from taggers.onnx_tagger import scores

    whole = [np.asarray(fitted(Image.open(p).convert("RGB"), model.spec.pixels, 448)) for p in paths]
    draft = [load(p, model.spec.pixels, 448) for p in paths]
    return float(np.abs(scores(session, model, whole) - scores(session, model, draft)).max())


def _draw(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    encoded: list[bytes] = []
    for _ in range(min(count, DIFFERENT)):
        small = Image.fromarray(rng.integers(0, 255, (96, 64, 3), dtype=np.uint8))
        data = io.BytesIO()
        small.resize((2048, 3072), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
        encoded.append(data.getvalue())
    paths = [folder / f"{i:04}.jpg" for i in range(count)]
    for i, path in enumerate(paths):  # bytes behind the end make it another content
        path.write_bytes(encoded[i % len(encoded)] + i.to_bytes(4, "little"))
    return paths


def _loop(workspace: Workspace, paths: list[Path]) -> None:
    session = open_session(tagger(workspace, "wd").file, CpuDevice())
    for path in paths:
        image = Image.open(path).convert("RGB")
        square = Image.new("RGB", (max(image.size),) * 2, (255, 255, 255))
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
        values = np.asarray(square.resize((448, 448), Image.Resampling.BICUBIC), np.float32)[None, ..., ::-1]
        session.run.run(None, {"input": np.ascontiguousarray(values)})


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """(on the clock, of CPU)."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        memory(*map(int, sys.argv[2:4]))
    else:
        main(*map(int, sys.argv[1:3]))
