"""A directory of 100,000 pictures: taking it in, tagging it, its page. A tenth of it first, to see how it grows.

    python -m tests.bench.dataset_large [PICTURES]        # 100,000 unless said otherwise; --no-browser, --no-tagging

Pictures are small and all different, so that what is measured is the book-keeping and not their decoding. A studio
serves them, the bundled demo tagger reads them, and the page is opened in Chromium. Memory is the resident set of the
server and of its worker.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.bench.dataset import first_screens
from tests.browser.conftest import Studio, start_studio, until

FILTERS = (
    "",
    "one",
    "-one",
    "tag:*background",
    "name:77",
    "res:<512",
    "has:tags",
    "changed:today",
    "mask:no",
    "dup:no",
)
MOST_ANSWER = 1 << 20  # bytes of what the page is sent for a filter


def make(folder: Path, pictures: int) -> None:
    """Distinct PNGs of some hundred bytes, a thousand in a folder."""
    rng = np.random.default_rng(0)
    for start in range(0, pictures, 1000):
        part = folder / f"{start // 1000:03}"
        part.mkdir(parents=True)
        for i, cells in enumerate(rng.integers(0, 255, (min(1000, pictures - start), 3, 4, 3), dtype=np.uint8)):
            image = Image.fromarray(cells).resize((64, 48), Image.Resampling.NEAREST)
            image.save(part / f"{start + i:06}.png", compress_level=1)


def resident(studio: Studio) -> dict[str, float]:
    """MiB of the server and of the largest of its children."""
    import psutil

    server = psutil.Process(studio.process.pid)
    worker = max((child.memory_info().rss for child in server.children(recursive=True)), default=0)
    return {"server": server.memory_info().rss / 2**20, "worker": worker / 2**20}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def answer(studio: Studio, path: str) -> bytes:
    with urllib.request.urlopen(studio.url + path, timeout=900) as found:
        return found.read()


def post(studio: Studio, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        studio.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=3600) as found:
        return json.loads(found.read())


def served(folder: Path, pictures: int) -> None:
    made = folder / "pictures"
    seconds, _ = timed(lambda: make(made, pictures))
    print(f"\n{pictures} pictures (made in {seconds:.0f} s)")
    studio = start_studio(folder / "workspace")
    try:
        studio.wait_for_worker(300)
        before = resident(studio)
        seconds, _ = timed(lambda: take_in(studio, made))
        now = resident(studio)
        print(f"taken in: {seconds:.1f} s, {1e3 * seconds / pictures:.2f} ms a picture")
        print(f"server {before['server']:.0f} -> {now['server']:.0f} MiB")
        if "--no-tagging" not in sys.argv:
            tagged(studio, pictures)
        page(studio)
        if "--no-browser" not in sys.argv:
            screens(studio)
        print("memory: " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in resident(studio).items()))
    finally:
        studio.stop()


def take_in(studio: Studio, folder: Path) -> None:
    """A job reads the folder; until it is done the page shows what is known."""
    seconds, _ = timed(lambda: post(studio, "/studio/datasets", {"name": "many", "folder": str(folder)}))
    print(f"the page has its answer after {seconds:.2f} s")
    ended(studio, next(job["id"] for job in studio.get("/studio/jobs") if job["kind"] == "scan"))


def ended(studio: Studio, job: str) -> str:
    over = ("done", "failed", "cancelled")
    return until(lambda: (state := studio.get(f"/studio/jobs/{job}")["state"]) in over and state, 3600)


def tagged(studio: Studio, pictures: int) -> None:
    job = studio.post("/studio/jobs", {"kind": "tag", "settings": {"dataset": "many", "tagger": "tagger"}})
    began, worker = time.perf_counter(), []
    while (state := studio.get(f"/studio/jobs/{job['id']}")["state"]) in ("queued", "running"):
        worker.append(resident(studio)["worker"])
        time.sleep(1)
    seconds = time.perf_counter() - began
    print(f"tagging: {state} in {seconds:.0f} s, {pictures / seconds:.0f} pictures a second")
    print(f"worker at most {max(worker):.0f} MiB")


def page(studio: Studio) -> None:
    """What the page is sent, and how long it waits; the second of two answers, as the page has it from then on."""
    for words in FILTERS:
        path = "/studio/datasets/many?" + urllib.parse.urlencode({"filter": words})
        first, _ = timed(lambda path=path: answer(studio, path))
        again, found = timed(lambda path=path: answer(studio, path))
        mark, size = "" if len(found) <= MOST_ANSWER else "  (too much)", len(found) / 1024
        print(f"{words or '(none)':18} {1e3 * again:7.0f} ms, first {1e3 * first:7.0f} ms, {size:7.0f} KiB{mark}")


def screens(studio: Studio) -> None:
    for seconds, heap in first_screens(studio, 2):
        print(f"first screen {seconds:.2f} s, {heap:.0f} MiB of the page's heap")


def main() -> int:
    most = next((int(word) for word in sys.argv[1:] if word.isdecimal()), 100_000)
    for pictures in (most // 10, most):
        folder = Path(tempfile.mkdtemp(prefix="bench-large-"))
        try:
            served(folder, pictures)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
