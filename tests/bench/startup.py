"""From start to first page: `studio serve` beside an empty seven-tab Gradio app, turn by turn in one run; and memory.

    python -m tests.bench.startup [--rounds 5]

The bounds: at most 1.3 x the empty app, server at most 300 MB resident.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

EMPTY = """
import sys, gradio as gr
with gr.Blocks(analytics_enabled=False) as page:
    with gr.Tabs():
        for name in "abcdefg":
            with gr.Tab(name):
                pass
page.launch(server_port=int(sys.argv[1]), quiet=True, ssr_mode=False, run_history=False)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def seconds_to_page(command: list[str], port: int, settle: float = 0.0) -> tuple[float, float]:
    """Seconds from start to the first whole page, and MB resident after `settle` more."""
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        while True:
            try:
                with opener.open(f"http://127.0.0.1:{port}/", timeout=60) as page:
                    page.read()
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode}") from None
                time.sleep(0.02)
        taken = time.perf_counter() - begin
        time.sleep(settle)
        return taken, psutil.Process(process.pid).memory_info().rss / 1e6
    finally:
        process.terminate()
        process.wait(30)


def measure(rounds: int) -> dict[str, float]:
    empty, ours, resident = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            port = free_port()
            one, _ = seconds_to_page([sys.executable, "-c", EMPTY, str(port)], port)
            port = free_port()
            studio = [sys.executable, "-m", "studio.cli", "serve", "--no-browser", "--port", str(port)]
            two, rss = seconds_to_page([*studio, "--workspace", str(Path(folder, "space"))], port, settle=8.0)
            if turn:  # the first warms the disk cache and makes the catalogue
                empty.append(one)
                ours.append(two)
                resident.append(rss)
    return {
        "empty_seconds": statistics.median(empty),
        "studio_seconds": statistics.median(ours),
        "ratio": statistics.median(o / e for o, e in zip(ours, empty, strict=True)),
        "server_mb": max(resident),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    for name, value in measure(parser.parse_args().rounds).items():
        print(f"{name:16} {value:.2f}")
