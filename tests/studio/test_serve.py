"""`studio serve` as a process of its own: what it holds in memory, how it stops, and who else may run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.graph.catalogue import Catalogue, Entry
from engine.graph.layout import to_workflow
from engine.workspace import Workspace
from studio import presence
from tests.studio.conftest import PATIENCE

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def studio(space: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], presence.Presence]]:
    command = [sys.executable, "-m", "studio.cli", "serve", "--port", "0", "--no-browser", "--workspace", str(space)]
    process = subprocess.Popen(
        [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 240
        while (found := presence.find(Workspace(space))) is None:
            assert process.poll() is None and time.monotonic() < end, process.stdout and process.stdout.read()
            time.sleep(0.1)
        yield process, found
    finally:
        process.kill()
        process.wait()


def until_worker_is(state: str, found: presence.Presence) -> None:
    end = time.monotonic() + 240
    while presence.call(found, "GET", "/studio/status")["worker"] != state:
        assert time.monotonic() < end
        time.sleep(0.1)


def stopped(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE)
    return out


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_the_server_never_holds_torch_gives_the_page_at_once_and_stops_cleanly(tmp_path: Path) -> None:
    with studio(tmp_path) as (process, found):
        page = httpx.get(found.url + "/", trust_env=False, timeout=PATIENCE)
        assert page.status_code == 200 and "gradio" in page.text
        until_worker_is("ready", found)
        for path in ("/config", "/theme.css", "/object_info", "/system_stats", "/queue", "/history"):
            assert httpx.get(found.url + path, trust_env=False, timeout=PATIENCE).status_code == 200
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        for library in ("libtorch", "libc10", "onnxruntime", "_torch"):
            assert library not in maps
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        out = stopped(process)
        assert process.returncode == 0 and "Traceback" not in out
        assert not (tmp_path / "server.json").exists()
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_no_module_of_the_server_imports_torch() -> None:
    code = (
        "import sys, pathlib, tempfile\n"
        "from engine.workspace import Workspace\n"
        "from studio.kinds import job_kinds\n"
        "from studio.server import asgi_app, open_app\n"
        "from studio.settings import StudioSettings\n"
        "app = open_app(Workspace(pathlib.Path(tempfile.mkdtemp())), StudioSettings(), job_kinds())\n"
        "asgi_app(app)\n"
        "heavy = ('torch', 'transformers', 'diffusers', 'peft', 'accelerate', 'onnxruntime', 'torchsde')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stderr


def test_a_port_in_use_is_an_error_with_a_remedy_and_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "studio.cli", "--port", str(port), "--workspace", str(tmp_path / "new")],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    assert done.returncode == 2
    assert done.stderr == (
        f"studio: Port {port} on 127.0.0.1 is in use. Stop what uses it, or take another: "
        f"studio serve --port {port + 1}\n"
    )
    assert not (tmp_path / "new").exists()


def test_two_studios_do_not_share_a_workspace_and_a_killed_one_frees_it(tmp_path: Path) -> None:
    with studio(tmp_path) as (process, found):
        command = [sys.executable, "-m", "studio.cli", "--port", "0", "--workspace", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 2 and f"(process {process.pid})" in done.stderr
        until_worker_is("ready", found)
        process.kill()
        process.wait()
    with studio(tmp_path) as (process, found):
        assert presence.call(found, "GET", "/studio/status")["pid"] == process.pid


def test_bound_to_every_address_it_prints_a_password_once_and_wants_it(tmp_path: Path) -> None:
    with studio(tmp_path, "--host", "0.0.0.0") as (process, found):
        away = {"Host": "192.168.1.5:7860"}
        with httpx.Client(base_url=found.url, trust_env=False, timeout=PATIENCE) as client:
            assert client.get("/", headers=away).status_code == 401
            assert client.get("/config", headers={**away, "Authorization": f"Bearer {found.token}"}).status_code == 200
            out = stopped(process)
            password = out.partition("only this once): ")[2].split("\n")[0]
            assert out.count(password) == 1 and len(password) == 19
    with studio(tmp_path, "--host", "0.0.0.0") as (process, found):
        answer = httpx.post(found.url + "/login", data={"password": password}, headers=away, trust_env=False)
        assert answer.status_code == 200
        assert "Password" not in stopped(process)


PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "plain"}},
}


def test_the_command_line_speaks_to_the_running_studio(tmp_path: Path) -> None:
    wrong = {"1": {"class_type": "EmptyLatentImage", "inputs": {"width": "x", "height": 64, "batch_size": 1}}}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    with studio(tmp_path / "space") as (_, found):
        until_worker_is("ready", found)
        command = [sys.executable, "-m", "studio.cli", "run", "--workspace", str(tmp_path / "space")]
        done = subprocess.run([*command, str(tmp_path / "wrong.json")], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "Prompt has no outputs" in done.stderr
        nodes = presence.call(found, "GET", "/object_info")
        editors = to_workflow(PICTURE, Catalogue({name: Entry(info) for name, info in nodes.items()}))
        (tmp_path / "editor.json").write_text(json.dumps(editors))
        done = subprocess.run([*command, str(tmp_path / "editor.json")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).is_file() and "plain_00001_" in done.stdout
        assert Path(done.stdout.strip()).read_bytes().count(b"Node name for S&R")  # it carries its workflow
        unknown = tmp_path / "preset.toml"
        unknown.write_text("rnak = 8\n")
        command[3] = "train"
        done = subprocess.run([*command, str(unknown)], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "'rank'" in done.stderr
