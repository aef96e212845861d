"""What the graph costs beside its nodes: prompts through the real server and worker, a websocket client listening.

    python -m tests.bench.graph [--only wide,chains,chain,small,many,interrupt] [--repeat 3] [--url URL --pid PID]

Each row is the best of `--repeat` tries: wall from sending POST /prompt to the last message, and the CPU seconds of
server and worker. Any server of this API can be measured with --url, once it has the pack in tests/bench/packs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

ROOT = Path(__file__).parents[2]
Prompt = dict[str, dict[str, Any]]
BOUNDS = {  # seconds: (cold, cached)
    ("wide", 1000): (0.25, 0.05),
    ("chains", 1000): (0.25, 0.05),
    ("wide", 5000): (1.2, 0.25),
    ("chains", 5000): (1.2, 0.25),
    ("chain", 800): (0.2, None),
    ("chain", 10_000): (2.5, None),
}


def graph(shape: str, count: int, nonce: int) -> Prompt:
    """`wide`: pairs; `chains`: chains of 50; `chain`: one."""
    nodes: Prompt = {}

    def add(kind: str, value: Any) -> list[Any]:
        nodes[str(len(nodes) + 1)] = {"class_type": kind, "inputs": {"value": value}}
        return [str(len(nodes)), 0]

    length = {"wide": 2, "chains": 50, "chain": count}[shape]
    for number in range(count // length):
        last = add("BenchConst", nonce + number)
        for _ in range(length - 2):
            last = add("BenchNoop", last)
        add("BenchSink", last)
    return nodes


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """(URL, process id) of a studio of its own with the pack."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "tests" / "bench" / "packs", Path(folder) / "custom_nodes")
        command = [sys.executable, "-m", "studio.cli", "serve", "--workspace", folder, "--port", "0", "--no-browser"]
        process = subprocess.Popen(
            [*command, "--custom-nodes", "--device", "cpu"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        try:
            line = next(line for line in process.stdout if "http://" in line)
            yield next(word for word in line.split() if word.startswith("http://")).rstrip("/"), process.pid
        finally:
            process.terminate()
            process.wait(30)


def cpu_seconds(pid: int) -> float:
    """Of a process and all that it has started."""
    if not pid:
        return 0.0
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


@dataclass
class Run:
    wall: float
    cpu: float
    sent: int  # bytes over the websocket
    messages: int
    cached: int
    status: str


class Client:
    """One client of the API: an HTTP session and an open websocket."""

    def __init__(self, session: aiohttp.ClientSession, url: str, pid: int = 0) -> None:
        self.id = uuid.uuid4().hex
        self.session, self.url, self.pid = session, url, pid

    async def __aenter__(self) -> Client:
        self.socket = await self.session.ws_connect(f"{self.url}/ws?clientId={self.id}", max_msg_size=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def post(self, prompt: Prompt) -> str:
        body = json.dumps({"prompt": prompt, "client_id": self.id})
        headers = {"Content-Type": "application/json"}
        async with self.session.post(f"{self.url}/prompt", data=body, headers=headers) as answer:
            found = await answer.json()
            assert answer.status == 200, found
            return found["prompt_id"]

    async def run(self, prompt: Prompt) -> Run:
        before, begin = cpu_seconds(self.pid), time.perf_counter()
        made = await self.post(prompt)
        run = await self.until_end(made)
        run.wall = time.perf_counter() - begin
        await asyncio.sleep(0.15)  # what comes after the last message is work as well
        run.cpu = cpu_seconds(self.pid) - before
        return run

    async def until_end(self, prompt_id: str) -> Run:
        run = Run(0, 0, 0, 0, 0, "success")
        async for message in self.socket:
            run.messages += 1
            run.sent += len(message.data)
            if message.type != aiohttp.WSMsgType.TEXT or '"progress_state"' in message.data[:30]:
                continue
            told = json.loads(message.data)
            about = told["data"]
            if about.get("prompt_id") != prompt_id:
                continue
            if told["type"] == "execution_cached":
                run.cached = len(about["nodes"])
            if told["type"] in ("execution_error", "execution_interrupted"):
                run.status = told["type"]
            if told["type"] == "executing" and about["node"] is None:
                return run
        raise AssertionError("the websocket was closed")


async def shapes(url: str, pid: int, only: set[str], repeat: int) -> None:
    print(f"{'graph':>18} {'':6} {'wall s':>8} {'may be':>7} {'CPU s':>7} {'messages':>9} {'MB sent':>8}")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        for (shape, count), bounds in BOUNDS.items():
            if shape not in only:
                continue
            tries: dict[str, list[Run]] = {"cold": [], "cached": []}
            for _ in range(repeat):
                prompt = graph(shape, count, random.randrange(10**12))
                async with Client(session, url, pid) as client:
                    for kind in tries:
                        run = await client.run(prompt)
                        assert run.status == "success", run
                        tries[kind].append(run)
            for kind, bound in zip(tries, bounds, strict=True):
                best = min(tries[kind], key=lambda run: run.wall)
                cpu = min(run.cpu for run in tries[kind])
                print(
                    f"{shape + ' ' + str(count):>18} {kind:6} {best.wall:8.3f} {bound or '':>7} {cpu:7.3f} "
                    f"{best.messages:9} {best.sent / 1e6:8.2f}",
                    flush=True,
                )


async def small(url: str, pid: int) -> None:
    """A fully cached workflow of ten nodes, from POST to the last message."""
    prompt = graph("chain", 10, random.randrange(10**12))
    async with aiohttp.ClientSession() as session, Client(session, url) as client:
        await client.run(prompt)
        taken = []
        for _ in range(200):
            begin = time.perf_counter()
            await client.until_end(await client.post(prompt))
            taken.append((time.perf_counter() - begin) * 1000)
            await asyncio.sleep(0.01)
        deciles = statistics.quantiles(taken, n=10)
        print(
            f"10 nodes, cached, POST to last message: best {min(taken):.1f} ms, 10 % {deciles[0]:.1f}, "
            f"median {deciles[4]:.1f}, 90 % {deciles[8]:.1f} (may be 5)",
            flush=True,
        )


async def many(url: str, pid: int) -> None:
    """200 prompts of 8 clients, queued at once: none lost, each client's in its order."""
    async with aiohttp.ClientSession() as session:
        clients = [await Client(session, url).__aenter__() for _ in range(8)]
        begin = time.perf_counter()

        async def queue(client: Client) -> list[str]:
            return [await client.post(graph("chain", 5, random.randrange(10**12))) for _ in range(25)]

        async def hear(client: Client) -> list[str]:
            ended: list[str] = []
            async for message in client.socket:
                told = json.loads(message.data)
                if told["type"] == "executing" and told["data"]["node"] is None:
                    ended.append(told["data"]["prompt_id"])
                    if len(ended) == 25:
                        break
            return ended

        heard = [asyncio.create_task(hear(client)) for client in clients]
        sent = await asyncio.gather(*map(queue, clients))
        queued = time.perf_counter() - begin
        ended = await asyncio.wait_for(asyncio.gather(*heard), 300)
        taken = time.perf_counter() - begin
        assert ended == sent, "a prompt was lost, or the order was not kept"
        for client in clients:
            await client.__aexit__()
        print(f"200 prompts of 8 clients: queued in {queued:.2f} s, done in {taken:.2f} s, none lost, order kept")


async def interrupt(url: str, pid: int) -> None:
    """POST /interrupt while a node is at work, until the first node of the next prompt starts."""
    taken = []
    async with aiohttp.ClientSession() as session, Client(session, url) as client:
        for _ in range(10):
            busy: Prompt = {
                "1": {"class_type": "BenchSteps", "inputs": {"seconds": 20.0 + random.random(), "step": 0.01}},
                "2": {"class_type": "BenchSink", "inputs": {"value": ["1", 0]}},
            }
            first = await client.post(busy)
            while not await _is(client, first, "progress"):
                pass
            following = await client.post(graph("chain", 3, random.randrange(10**12)))
            begin = time.perf_counter()
            async with session.post(f"{url}/interrupt", json={}):
                pass
            while not await _is(client, following, "executing"):
                pass
            taken.append((time.perf_counter() - begin) * 1000)
            await client.until_end(following)
    print(
        f"interrupt to the next prompt's first node: median {statistics.median(taken):.0f} ms, {max(taken):.0f} at most"
    )


async def _is(client: Client, prompt_id: str, event: str) -> bool:
    message = await client.socket.receive(60)
    if message.type != aiohttp.WSMsgType.TEXT:
        return False
    told = json.loads(message.data)
    return told["type"] == event and told["data"].get("prompt_id") == prompt_id


async def measure(url: str, pid: int, only: set[str], repeat: int) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/object_info/BenchConst") as answer:
        assert "BenchConst" in await answer.json(), "the server lacks the pack in tests/bench/packs"
    await shapes(url, pid, only, repeat)
    for name, run in (("small", small), ("many", many), ("interrupt", interrupt)):
        if name in only:
            await run(url, pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="wide,chains,chain,small,many,interrupt")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--url", default="")
    parser.add_argument("--pid", type=int, default=0)
    options = parser.parse_args()
    only = set(options.only.split(","))
    if options.url:
        asyncio.run(measure(options.url, options.pid, only, options.repeat))
        return
    with served() as (url, pid):
        asyncio.run(measure(url, pid, only, options.repeat))


if __name__ == "__main__":
    main()
