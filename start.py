"""Sets Easel up and starts it: `python start.py`. Needs nothing but Python 3.11, 3.12 or 3.13.

    python start.py [flags of `studio serve`]    make .venv once, install, serve on 127.0.0.1:7860, open the browser
    python start.py test [arguments of pytest]   install what the tests need and run all of them, with the linters
    python start.py COMMAND ...                  any other command of `studio`, e.g. `python start.py doctor`

A torch that this Python already has is kept. Otherwise pip resolves it as you have configured pip (mirrors included);
where you have configured nothing, a build that fits the machine is taken from PyTorch's own index. To choose a build
yourself, put it into .venv first, e.g. `.venv/bin/python -m pip install torch --index-url .../whl/cpu`.
The node editor is installed beside it as the package of its own that it is; EASEL_EDITOR=0 leaves it out.

This file stays readable for older Pythons, so that they can say what is wrong.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST, NEWEST = (3, 11), (3, 13)
TORCH = "torch>=2.8,<2.14"
TORCH_INDEX = "https://download.pytorch.org/whl/"
CUDA_BUILD = "cu128"  # runs on every driver for CUDA 12
# Extras that are tried, not needed: the node editor, a package of its own under GPL-3.0; and aiohttp, which routes of
# node packs are made of, for the day on which somebody turns packs on.
EDITOR, PACKS = "editor", "packs"
# Reads upscale models. Its metadata asks for torchvision, which is bound to one build of torch and which two of its
# forty architectures need: it comes without.
UPSCALE = ("spandrel>=0.4.2,<0.5", "einops>=0.7,<1")
PASSED_ON = ("serve", "tag", "train", "run", "jobs", "doctor", "password", "token", "--version")


class CannotStart(Exception):
    """Said to the person as it is."""


def main(arguments):
    try:
        testing = arguments[:1] == ["test"]
        python = prepare(ROOT / ".venv", "test" if testing else "")
        if testing:
            return run_tests(python, arguments[1:])
        command = arguments if arguments[:1] and arguments[0] in PASSED_ON else ["serve", *arguments]
        return become([str(python), "-m", "studio.cli", *command])
    except CannotStart as error:
        print(f"start.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def prepare(folder, extra):
    """The environment's Python, with everything installed. A stamp makes the second time cheap."""
    python = python_of(folder)
    stamp = folder / "easel-stamp.json"
    wanted = fingerprint()
    done = read_stamp(stamp)
    if python.exists() and done.get("fingerprint") == wanted and extra in done.get("extras", []):
        return python
    if not python.exists():
        make_environment(folder)
    extras = sorted({extra, *(done.get("extras", []) if done.get("fingerprint") == wanted else [])})
    install(python, [name for name in extras if name], editor=os.environ.get("EASEL_EDITOR") != "0")
    stamp.write_text(json.dumps({"fingerprint": wanted, "extras": extras}), encoding="utf-8")
    return python


def python_of(folder, windows=os.name == "nt"):
    return folder / "Scripts" / "python.exe" if windows else folder / "bin" / "python"


def fingerprint():
    """Changes when the requirements change, or the folder was moved (an editable install names it)."""
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()


def read_stamp(path):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def make_environment(folder):
    python = supported_python()
    print(f"Making the environment {folder} ...", flush=True)
    flags = ["--system-site-packages"] if has_torch(python) else []
    done = subprocess.run([*python, "-m", "venv", *flags, str(folder)], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        words = (done.stdout + done.stderr).strip()
        if "ensurepip" in words:
            words = "this Python lacks its venv module. On Debian and Ubuntu: sudo apt install python3-venv"
        raise CannotStart(words)


def supported_python(version=None, which=shutil.which, windows=os.name == "nt"):
    """The command of a Python that will do: this one, or another one on the path."""
    version = tuple(version or sys.version_info[:2])
    if OLDEST <= version <= NEWEST:
        return [sys.executable]
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        if windows and which("py") and subprocess.run(["py", f"-3.{minor}", "-V"], capture_output=True).returncode == 0:
            return ["py", f"-3.{minor}"]
        found = which(f"python3.{minor}")
        if found:
            return [found]
    raise CannotStart(
        f"this is Python {version[0]}.{version[1]}; Easel needs 3.11, 3.12 or 3.13, and none was found on the path.\n"
        "Install one from https://www.python.org/downloads/ and run it on this file: python3.13 start.py"
    )


def has_torch(python):
    """Whether that Python has a torch that will do: it is big, and may be built for this machine."""
    probe = "from importlib.metadata import version as v; print(v('torch'))"
    done = subprocess.run([*python, "-c", probe], capture_output=True, text=True)
    parts = done.stdout.strip().split("+")[0].split(".")[:2]
    return done.returncode == 0 and parts[0] == "2" and parts[1].isdigit() and 8 <= int(parts[1]) < 14


def install(python, extras, editor=True):
    if not has_torch([str(python)]):
        install_torch(python)
    print("Installing what Easel needs. The first time takes some minutes ...", flush=True)
    with_editor = editor and install_easel(python, [*extras, PACKS, EDITOR])
    if not with_editor and not install_easel(python, [*extras, PACKS]) and not install_easel(python, extras):
        raise CannotStart("pip could not install Easel; its words are above. Run this again when that is mended.")
    if editor and not with_editor:
        print("Note: the node editor could not be installed; the Workflow tab draws graphs without it.", flush=True)
    command = [str(python), "-m", "pip", "install", "--no-deps", *UPSCALE]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        print("Note: what reads upscale models could not be installed; everything else works.", flush=True)


def install_easel(python, extras):
    what = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    return not subprocess.run(
        [str(python), "-m", "pip", "install", "--editable", what], stdin=subprocess.DEVNULL
    ).returncode


def install_torch(python):
    """From PyTorch's index where that is better than what pip would take; else nothing, and pip takes its own."""
    build = torch_build(sys.platform, has_nvidia(), pip_is_configured(python))
    if build and reachable(f"{TORCH_INDEX}{build}/torch/"):
        print(f"Installing torch ({build}) ...", flush=True)
        command = [str(python), "-m", "pip", "install", TORCH, "--index-url", TORCH_INDEX + build]
        subprocess.run(command, stdin=subprocess.DEVNULL)  # if it fails, the next pip takes what it can get
    elif build == "cpu":
        print("Note: no NVIDIA driver was found, and pip may still take a large CUDA build of torch.", flush=True)


def torch_build(platform, nvidia, configured):
    """Which index of PyTorch's to use, or '' for pip's choice. PyPI has CUDA builds for Linux, CPU ones for Windows."""
    if configured:
        return ""
    if platform.startswith("linux") and not nvidia:
        return "cpu"
    if platform == "win32" and nvidia:
        return CUDA_BUILD
    return ""


def has_nvidia(exists=os.path.exists, which=shutil.which):
    places = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/usr/lib/wsl/lib/libcuda.so.1")
    return bool(which("nvidia-smi")) or any(exists(place) for place in places)


def pip_is_configured(python):
    """Whether the person has told pip where packages come from."""
    listed = subprocess.run([str(python), "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    return any(word in listed for word in ("index-url", "index_url", "find-links", "find_links", "no-index"))


def reachable(url):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def run_tests(python, arguments):
    """Everything, even when something before has failed; the result is bad when anything is, or when no test ran."""
    folder = python.parent
    checks = [
        [str(folder / "ruff"), "check", "."],
        [str(folder / "ruff"), "format", "--check", "."],
        [str(folder / "pyright")],
        [str(python), "-m", "pytest", *arguments],
    ]
    failed = []
    for check in checks:
        name = " ".join([Path(check[0]).stem, *check[1:]]) if check[0] != str(python) else "pytest"
        print(f"\n== {name}", flush=True)
        if subprocess.run(check, cwd=str(ROOT), stdin=subprocess.DEVNULL).returncode:
            failed.append(name)
    print(f"\nFailed: {', '.join(failed)}" if failed else "\nAll checks passed.", flush=True)
    return 1 if failed else 0


def become(command):
    """Run it in place of this process; Windows can't, so there it is a child."""
    if os.name == "nt":
        return subprocess.call(command)
    sys.stdout.flush()
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
