"""Programs that nobody here wrote, from the package index, run a workflow against the studio and get the picture."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from engine.workflows import PictureSettings, text_to_image
from studio.access import Access
from studio.presence import Presence
from tests.studio.conftest import PATIENCE
from tests.studio.test_serve import studio, until_worker_is

pytestmark = pytest.mark.slow
SETTINGS = PictureSettings("easel-demo.safetensors", "a red star", width=128, height=96, steps=4, cfg=2.0, seed=5)

# How its documentation says: a session with our header; then nodes as functions, and the picture as an object.
COMFY_SCRIPT = """
import sys
import aiohttp
from comfy_script.client import Client
from comfy_script.runtime import load
url, token, out = sys.argv[1:]
load(Client(url, session_factory=lambda: aiohttp.ClientSession(headers={'Authorization': f'Bearer {token}'})))
from comfy_script.runtime.nodes import *
from comfy_script.runtime import Workflow
with Workflow(wait=True):
    model, clip, vae = CheckpointLoaderSimple('easel-demo.safetensors')
    positive, negative = CLIPTextEncode('a red star', clip), CLIPTextEncode('', clip)
    latent = EmptyLatentImage(128, 96, 1)
    latent = KSampler(model, 5, 4, 2.0, 'euler', 'normal', positive, negative, latent, 1)
    result = SaveImage(VAEDecode(latent, vae), 'script')
result.wait()[0].save(out)
"""
QUIET = ("--quiet", "--disable-pip-version-check", "--retries", "10", "--timeout", "30")


def environment(folder: Path, *packages: str) -> Path:
    """The folder of programs of a new environment with these packages: theirs may want other versions than ours."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    command = [str(programs / "python"), "-m", "pip", "install", *QUIET, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return programs


def ran(command: list[str], home: Path) -> str:
    """What a client said; it sees a home of its own and no proxies, and tells nobody about it."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    told = {"HOME": str(home), "DO_NOT_TRACK": "1", "COMFY_NO_WATCH": "1", "NO_COLOR": "1", "no_proxy": "*"}
    done = subprocess.run(
        command,
        env=kept | told,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_comfy_cli_runs_a_workflow_on_open_loopback_and_gets_the_picture(tmp_path: Path) -> None:
    comfy = str(environment(tmp_path / "env", "comfy-cli==1.23.0") / "comfy")
    workflow = tmp_path / "workflow.json"
    workflow.write_text(json.dumps(text_to_image(SETTINGS)), encoding="utf-8")
    with studio(tmp_path / "space", "--device", "cpu") as (_, found):
        until_worker_is("ready", found)
        ran([comfy, "--skip-prompt", "tracking", "disable"], tmp_path)
        where = ["--workflow", str(workflow), "--host", "127.0.0.1", "--port", str(found.port)]
        told = ran([comfy, "--skip-prompt", "run", "--wait", *where], tmp_path)
        about = json.loads(told[told.index('{"schema"') :].splitlines()[0])["data"]
        assert about["status"] == "completed"
        (address,) = about["outputs"]
        assert Image.open(io.BytesIO(fetched(address, found))).size == (128, 96)
        queued = ran([comfy, "--skip-prompt", "run", *where], tmp_path)
        assert '"queued"' in queued or '"completed"' in queued


def fetched(address: str, found: Presence) -> bytes:
    assert urlsplit(address).port == found.port
    answer = httpx.get(address, trust_env=False, timeout=PATIENCE)
    assert answer.status_code == 200
    return answer.content


def test_comfy_script_runs_a_workflow_with_a_token_and_gets_the_picture(tmp_path: Path) -> None:
    python = str(environment(tmp_path / "env", "comfy-script[client]==0.6.1", "tqdm") / "python")
    space = tmp_path / "space"
    space.mkdir()
    (space / "studio.toml").write_text("[access]\nlocal_without_password = false\n", encoding="utf-8")
    with studio(space, "--device", "cpu") as (_, found):
        until_worker_is("ready", found)
        assert httpx.get(found.url + "/object_info", trust_env=False).status_code == 401
        token = Access(space / "access.json").new_token("comfy-script")
        (tmp_path / "script.py").write_text(COMFY_SCRIPT, encoding="utf-8")  # it reads its own source
        ran([python, "script.py", found.url, token, str(tmp_path / "made.png")], tmp_path)
        assert Image.open(tmp_path / "made.png").size == (128, 96)
        own = {"Authorization": f"Bearer {found.token}"}
        jobs = httpx.get(found.url + "/studio/jobs", headers=own, trust_env=False, timeout=PATIENCE).json()
        assert [(job["user"], job["state"]) for job in jobs] == [("comfy-script", "done")]
