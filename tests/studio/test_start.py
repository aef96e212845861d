"""start.py, with platforms, disks and pips that are not here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "start.py"


@pytest.fixture
def start() -> ModuleType:
    spec = importlib.util.spec_from_file_location("start", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("platform", "nvidia", "configured", "build"),
    [
        ("linux", False, False, "cpu"),
        ("linux", True, False, ""),  # PyPI's own build is the CUDA one
        ("linux", False, True, ""),  # the person's mirrors are asked
        ("win32", True, False, "cu128"),
        ("win32", False, False, ""),
        ("darwin", False, False, ""),
    ],
)
def test_the_build_of_torch_fits_the_machine(
    start: ModuleType, platform: str, nvidia: bool, configured: bool, build: str
) -> None:
    assert start.torch_build(platform, nvidia, configured) == build


def test_an_nvidia_driver_is_seen_where_it_is(start: ModuleType) -> None:
    nowhere = {"exists": lambda path: False, "which": lambda name: None}
    assert not start.has_nvidia(**nowhere)
    assert start.has_nvidia(**{**nowhere, "which": lambda name: "/usr/bin/nvidia-smi"})
    assert start.has_nvidia(**{**nowhere, "exists": lambda path: path.startswith("/usr/lib/wsl")})


def test_the_environment_lies_where_each_system_puts_it(start: ModuleType) -> None:
    folder = Path("x") / ".venv"
    assert start.python_of(folder, windows=False) == folder / "bin" / "python"
    assert start.python_of(folder, windows=True) == folder / "Scripts" / "python.exe"


def test_an_unsupported_python_looks_for_another_and_says_what_to_do(start: ModuleType) -> None:
    assert start.supported_python((3, 12)) == [sys.executable]
    here = {"python3.12": "/opt/bin/python3.12"}
    assert start.supported_python((3, 9), here.get, windows=False) == ["/opt/bin/python3.12"]
    with pytest.raises(start.CannotStart, match=r"this is Python 3\.14; Easel needs 3\.11, 3\.12 or 3\.13"):
        start.supported_python((3, 14), lambda name: None, windows=False)


def test_on_windows_the_launcher_is_asked(start: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(returncode=0 if command[1] == "-3.11" else 1)

    monkeypatch.setattr(start.subprocess, "run", run)
    launcher = {"py": "py"}.get
    assert start.supported_python((3, 14), launcher, windows=True) == ["py", "-3.11"]
    assert asked == [["py", f"-3.{minor}", "-V"] for minor in (13, 12, 11)]


def test_python_2_is_told_what_is_wrong_too() -> None:
    compile(FILE.read_text(encoding="utf-8"), "start.py", "exec", dont_inherit=True)
    import ast

    ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 7))


class Pip:
    """Records what would be run, and makes the files that matter."""

    def __init__(self, start: ModuleType, torch: bool = True, fails: str = "") -> None:
        self.start, self.torch, self.fails = start, torch, fails
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> SimpleNamespace:
        self.commands.append(command)
        words = " ".join(command)
        if "-m venv" in words:
            python = self.start.python_of(Path(command[-1]))
            python.parent.mkdir(parents=True)
            python.touch()
        version = "2.9.1+cu128\n" if self.torch and "import version" in words else ""
        code = int(bool(self.fails and self.fails in words) or ("import version" in words and not self.torch))
        return SimpleNamespace(returncode=code, stdout=version, stderr="ensurepip is not available" if code else "")

    def installs(self) -> list[str]:
        """What is installed beside what reads upscale models."""
        words = [" ".join(command[4:]) for command in self.commands if "install" in command]
        return [one for one in words if not one.startswith("--no-deps spandrel")]


@pytest.fixture
def pip(start: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Pip:
    pip = Pip(start)
    monkeypatch.setattr(start.subprocess, "run", pip)
    return pip


def test_a_torch_that_is_there_is_kept_and_everything_is_installed_once(
    start: ModuleType, pip: Pip, tmp_path: Path
) -> None:
    folder = tmp_path / ".venv"
    python = start.prepare(folder, "")
    assert ["--system-site-packages" in command for command in pip.commands if "venv" in command] == [True]
    assert pip.installs() == [f"--editable {start.ROOT}[packs,editor]"]
    count = len(pip.commands)
    assert start.prepare(folder, "") == python and len(pip.commands) == count
    start.prepare(folder, "test")
    assert pip.installs()[-1] == f"--editable {start.ROOT}[test,packs,editor]"
    count = len(pip.commands)
    start.prepare(folder, "")
    start.prepare(folder, "test")
    assert len(pip.commands) == count


def test_changed_requirements_are_installed_again(
    start: ModuleType, pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv"
    start.prepare(folder, "")
    monkeypatch.setattr(start, "fingerprint", lambda: "another")
    start.prepare(folder, "")
    assert len(pip.installs()) == 2
    (folder / "easel-stamp.json").write_text("not json")
    start.prepare(folder, "")
    assert len(pip.installs()) == 3


def test_without_torch_the_official_index_is_used_only_where_it_answers(
    start: ModuleType, pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip.torch = False
    monkeypatch.setattr(start, "torch_build", lambda *_: "cpu")
    for answers in (True, False):
        monkeypatch.setattr(start, "reachable", lambda url, answers=answers: answers)
        start.prepare(tmp_path / str(answers), "")
    official = f"{start.TORCH} --index-url https://download.pytorch.org/whl/cpu"
    assert pip.installs() == [official, *[f"--editable {start.ROOT}[packs,editor]"] * 2]


def test_debian_without_venv_is_told_the_package(start: ModuleType, pip: Pip, tmp_path: Path) -> None:
    pip.fails = "-m venv"
    with pytest.raises(start.CannotStart, match="sudo apt install python3-venv"):
        start.prepare(tmp_path / ".venv", "")


def test_a_failed_install_leaves_no_stamp(start: ModuleType, pip: Pip, tmp_path: Path) -> None:
    pip.fails = "--editable"
    with pytest.raises(start.CannotStart, match="pip could not install"):
        start.prepare(tmp_path / ".venv", "")
    assert not (tmp_path / ".venv" / "easel-stamp.json").exists()


def test_a_node_editor_that_cannot_be_had_does_not_keep_the_rest_from_coming(
    start: ModuleType, pip: Pip, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pip.fails = "[packs,editor]"
    start.prepare(tmp_path / "a", "")
    assert pip.installs() == [f"--editable {start.ROOT}[packs,editor]", f"--editable {start.ROOT}[packs]"]
    assert "the node editor could not be installed" in capsys.readouterr().out
    monkeypatch.setenv("EASEL_EDITOR", "0")
    start.prepare(tmp_path / "b", "")
    assert pip.installs()[2:] == [f"--editable {start.ROOT}[packs]"]
    pip.fails = "packs"  # nor what routes of node packs need
    start.prepare(tmp_path / "c", "")
    assert pip.installs()[-1] == f"--editable {start.ROOT}"


def test_what_reads_upscale_models_comes_without_torchvision_and_may_fail(
    start: ModuleType, pip: Pip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pip.fails = "spandrel"
    start.prepare(tmp_path / ".venv", "")
    assert pip.commands[-1][4:] == ["--no-deps", *start.UPSCALE]
    assert "everything else works" in capsys.readouterr().out
    stated = tomllib.loads((start.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert stated["upscale"] == list(start.UPSCALE)


def test_all_checks_run_and_one_failure_is_enough(
    start: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        ran.append(Path(command[0]).name)
        return SimpleNamespace(returncode=int("pyright" in command[0]))

    monkeypatch.setattr(start.subprocess, "run", run)
    assert start.run_tests(Path("/e/bin/python"), ["-x"]) == 1
    assert ran == ["ruff", "ruff", "pyright", "python"]
    assert "Failed: pyright" in capsys.readouterr().out


def test_a_second_start_adds_at_most_half_a_second(
    start: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of some tries, with an environment whose Python ends at once."""
    (tmp_path / "start.py").write_bytes(FILE.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((FILE.parent / "pyproject.toml").read_bytes())
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 7\n")
    python.chmod(0o755)
    monkeypatch.setattr(start, "ROOT", tmp_path)
    stamp = {"fingerprint": start.fingerprint(), "extras": [""]}
    (tmp_path / ".venv" / "easel-stamp.json").write_text(json.dumps(stamp))
    seconds = [1.0]
    while min(seconds) >= 0.5 and len(seconds) <= 10:
        begin = time.perf_counter()
        assert subprocess.run([sys.executable, str(tmp_path / "start.py")], check=False).returncode == 7
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.5
