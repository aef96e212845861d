"""docs/comfyui-compatibility.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.findall(
    r"`([a-z_]+/(?:[\w/]+\.py(?:::\w+)?)?)`", (ROOT / "docs" / "comfyui-compatibility.md").read_text("utf-8")
)


def test_the_table_names_many() -> None:
    assert len(NAMED) > 90


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_what_the_table_names_is_there(name: str) -> None:
    path, _, function = name.partition("::")
    found = ROOT / "tests" / path
    assert found.exists()
    if function:
        assert re.search(rf"^(?:async )?def {function}\(", found.read_text("utf-8"), re.MULTILINE)
