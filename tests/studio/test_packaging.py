"""What `pip install .` takes with it."""

from __future__ import annotations

import fnmatch
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("studio", "tabs", "engine", "taggers", "trainers", "configs")


def tracked() -> list[str]:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_every_data_file_goes_into_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = [*settings["package-data"]["*"], "*.py"]
    ours = [name for name in tracked() if name.split("/")[0] in PACKAGES and not name.endswith("README.md")]
    left_out = [n for n in ours if not any(fnmatch.fnmatch(n.rsplit("/", 1)[-1], pattern) for pattern in patterns)]
    assert left_out == []


def test_nothing_large_is_in_the_repository_but_the_demo_world() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in tracked() if (ROOT / name).is_file()}
    large = {name for name, size in sizes.items() if size > 2_000_000 and not name.startswith("configs/demo/")}
    assert large == set()
    assert sum(size for name, size in sizes.items() if name.startswith("configs/demo/")) <= 9 * 2**20
