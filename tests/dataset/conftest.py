from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from engine.dataset.library import Dataset, Library
from engine.dataset.pictures import scan
from engine.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "studio").create()


@pytest.fixture
def dataset(workspace: Workspace) -> Iterator[Dataset]:
    """Three pictures: a.png, b.png and sub/c.jpg."""
    with Library(workspace).create("set") as opened:
        picture(opened.root / "a.png", 10)
        picture(opened.root / "b.png", 20)
        picture(opened.root / "sub" / "c.jpg", 30)
        scan(opened)
        yield opened


def picture(path: Path, shade: int = 128, size: tuple[int, int] = (48, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)
    return path
