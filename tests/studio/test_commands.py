from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import NotFound
from engine.workspace import Workspace
from studio.commands import _only_tagger
from taggers.catalogue import tagger
from tests.taggers.synthetic import write_wd


def test_the_only_tagger_is_taken_and_of_several_one_is_asked_for(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "studio").create()
    assert tagger(workspace, _only_tagger(workspace)).name == "tagger"  # the one that comes along
    write_wd(workspace.models / "taggers" / "wd-test")
    with pytest.raises(NotFound, match=r"--tagger\. There are: tagger, wd-test"):
        _only_tagger(workspace)
