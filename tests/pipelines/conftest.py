"""A studio with a tiny checkpoint of Stable Diffusion 1.x, and diffusers' modules of the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.pipelines import sd1
from tests.pipelines.running import Studio


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them run whole pipelines: together the better part of a minute."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def parts(studio: Studio) -> dict[str, Any]:
    return sd1.make_parts(studio)
