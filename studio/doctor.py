"""`studio doctor`: what is here, what is missing, and how to get it. It asks torch in a process of its own."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any, Literal

import psutil

from engine.workspace import MODEL_FOLDERS, Workspace
from studio.versions import installed_version

Verdict = Literal["ok", "note", "bad"]
Row = tuple[Verdict, str, str]  # verdict, what, remedy
GIB = 2**30
_MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}
_PROBE = """
import json, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "devices": []}
if torch.cuda.is_available():
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        found["devices"].append([p.name, p.total_memory])
found["mps"] = torch.backends.mps.is_available()
print(json.dumps(found))
"""


def report(workspace: Workspace, say: Callable[[str], None] = print) -> int:
    """Returns 1 when something is wrong that has to be mended before the studio can work."""
    worst = 0
    for verdict, what, remedy in rows(workspace):
        say(f"{_MARKS[verdict]}  {what}")
        if remedy:
            say(f"      -> {remedy}")
        worst = max(worst, verdict == "bad")
    return int(worst)


def rows(workspace: Workspace) -> Iterator[Row]:
    yield _python()
    yield from _packages()
    yield from _device(_probe_torch())
    yield from _workspace(workspace)
    yield from _extras()
    yield from _packs(workspace)


def _python() -> Row:
    here = f"Python {platform.python_version()} on {platform.platform()}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return "ok", here, ""
    return "bad", here, "Easel needs Python 3.11, 3.12 or 3.13."


def _packages() -> Iterator[Row]:
    if not installed_version("easel-studio"):
        yield "note", "Easel runs from its folder without being installed", f"{sys.executable} -m pip install -e ."
        return
    wanted = [
        re.split(r"[^A-Za-z0-9._-]", line)[0] for line in requires("easel-studio") or [] if "extra ==" not in line
    ]
    missing = [name for name in wanted if not installed_version(name)]
    if missing:
        yield "bad", f"packages missing: {', '.join(missing)}", f"{sys.executable} -m pip install {' '.join(missing)}"
    shown = ("easel-studio", "torch", "gradio", "diffusers", "transformers", "peft", "onnxruntime")
    yield "ok", ", ".join(f"{name} {installed_version(name)}" for name in shown if name not in missing), ""


def _probe_torch() -> dict[str, Any] | str:
    """What torch says of the devices, or why it says nothing."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "importing torch took more than two minutes"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def _device(found: dict[str, Any] | str) -> Iterator[Row]:
    memory = psutil.virtual_memory()
    yield "ok", f"memory {memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB free", ""
    if isinstance(found, str):
        yield "bad", f"torch can't be imported: {found}", f"{sys.executable} -m pip install --force-reinstall torch"
        return
    for name, total in found["devices"]:
        yield "ok", f"{name}, {total / GIB:.1f} GiB (torch {found['torch']}, CUDA {found['cuda']})", ""
    if found["devices"]:
        return
    if found["mps"]:
        yield "ok", f"Apple GPU (torch {found['torch']})", ""
    elif not shutil.which("nvidia-smi"):
        yield "note", f"no GPU was found: everything runs on the CPU (torch {found['torch']})", ""
    elif found["cuda"]:
        remedy = f"Update the NVIDIA driver: this torch was built for CUDA {found['cuda']}."
        yield "note", "an NVIDIA driver is here, but torch can't use it", remedy
    else:
        remedy = "Install a CUDA build of torch: https://pytorch.org/get-started/locally/"
        yield "note", f"an NVIDIA driver is here, but torch {found['torch']} is built for the CPU only", remedy


def _workspace(workspace: Workspace) -> Iterator[Row]:
    existing = next(p for p in (workspace.root, *workspace.root.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    remedy = "" if free > 10 * GIB else "Models take gigabytes: choose another disk with --workspace."
    yield ("ok" if free > 2 * GIB else "note"), f"workspace {workspace.root}, {free / GIB:.1f} GiB free", remedy
    if not workspace.root.is_dir():
        yield "note", "the workspace is not there yet", "studio makes it at its first start."
        return
    if not _writable(workspace.root):
        yield "bad", f"{workspace.root} can't be written", "Change its owner, or choose another with --workspace."
    counts = {folder: len(workspace.list_models(folder)) for folder in MODEL_FOLDERS}
    yield "ok", "models: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count), ""
    if not counts["checkpoints"]:
        yield "note", "no checkpoint", f"Put a .safetensors file into {workspace.models / 'checkpoints'}."


def _extras() -> Iterator[Row]:
    if installed_version("bitsandbytes"):
        yield "ok", "8-bit optimisers (bitsandbytes)", ""
    else:
        yield "note", "no 8-bit optimisers", f"Optional: {sys.executable} -m pip install 'easel-studio[eightbit]'"
    if installed_version("spandrel"):
        yield "ok", "upscale models (spandrel)", ""
    else:
        command = f'{sys.executable} -m pip install --no-deps "spandrel>=0.4.2,<0.5" einops'
        yield "note", "no upscale models", f"Optional: {command}"
    if editor := installed_version("comfyui-frontend-package"):
        yield "ok", f"node editor {editor}", ""


def _packs(workspace: Workspace) -> Iterator[Row]:
    """Node packs of others, as they were loaded last."""
    try:
        packs = json.loads((workspace.cache / "packs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    good = [pack["name"] for pack in packs if not pack["error"] and not pack.get("off")]
    if good:
        yield "ok", f"node packs: {', '.join(good)}", ""
    for pack in packs:
        if pack["error"]:
            reason = pack["error"].strip().splitlines()[-1]
            yield "note", f"the node pack {pack['name']} was not loaded: {reason}", f"See {pack['path']}."


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
