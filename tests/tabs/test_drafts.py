"""Drafts: what is typed outlives the page and the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import OutsideWorkspace
from tabs.drafts import Drafts


def test_a_draft_is_there_after_a_restart(tmp_path: Path) -> None:
    Drafts(tmp_path).put("generate", {"positive": "红色的星星 ★", "steps": 16})
    assert Drafts(tmp_path).get("generate") == {"positive": "红色的星星 ★", "steps": 16}


def test_two_forms_of_a_tab_do_not_erase_each_other(tmp_path: Path) -> None:
    drafts = Drafts(tmp_path)
    drafts.put("dataset", {"current": "bbdr"})
    drafts.put("dataset", {"filter": "tag:one"})
    assert drafts.get("dataset") == {"current": "bbdr", "filter": "tag:one"}


def test_a_draft_that_is_no_json_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("{half", encoding="utf-8")
    assert Drafts(tmp_path).get("train") == {}
    (tmp_path / "train.json").write_text("[1]", encoding="utf-8")
    assert Drafts(tmp_path).get("train") == {}


def test_a_draft_stays_in_its_folder(tmp_path: Path) -> None:
    with pytest.raises(OutsideWorkspace):
        Drafts(tmp_path / "drafts").put("../other", {})
