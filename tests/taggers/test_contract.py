from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import FileError
from engine.workspace import Workspace
from taggers.catalogue import UnknownTagger, installed, tagger
from taggers.contract import WrongShape, contract
from taggers.onnx_header import NotOnnx, read_onnx_header
from taggers.spec import WrongVocabulary
from tests.taggers.synthetic import ROWS, write_wd


def test_the_header_is_read_without_onnxruntime(workspace: Workspace) -> None:
    header = read_onnx_header(tagger(workspace, "wd-test").file)
    assert [(i.name, i.dtype, i.shape) for i in header.inputs] == [("input", "float32", ("batch", 32, 32, 3))]
    assert [(o.name, o.dtype, o.shape) for o in header.outputs] == [("output", "float32", ("batch", 11))]


def test_what_the_models_tab_needs_imports_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys, taggers.contract, taggers.presets, taggers.rules, engine.dataset.export, engine.dataset.view\n"
        "sys.exit(bool({'torch', 'onnxruntime'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_taggers_on_disk_are_found_by_their_folder(workspace: Workspace) -> None:
    assert "wd-test" in [one.name for one in installed(workspace)]
    found = tagger(workspace, "wd-test/model.onnx")
    assert found == tagger(workspace, "wd-test")
    model = contract(found)
    assert (model.spec.name, model.size, model.fixed_batch, len(model.words)) == ("wd", 32, None, 11)
    assert model.words.names[:2] == ("rating:general", "rating:sensitive")


def test_a_fixed_batch_is_known_before_it_runs(workspace: Workspace) -> None:
    write_wd(workspace.models / "taggers" / "fixed", fixed_batch=1)
    assert contract(tagger(workspace, "fixed")).fixed_batch == 1


@pytest.mark.parametrize("data", [b"", b"hello, I am a text file", b"\x80\x04\x95pickle"])
def test_what_is_no_onnx_is_refused(workspace: Workspace, data: bytes) -> None:
    tagger(workspace, "wd-test").file.write_bytes(data)
    with pytest.raises(NotOnnx, match=r"model\.onnx"):
        contract(tagger(workspace, "wd-test"))


def test_a_cut_off_model_is_refused(workspace: Workspace) -> None:
    file = tagger(workspace, "wd-test").file
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(FileError):
        contract(tagger(workspace, "wd-test"))


def test_a_tag_list_of_another_model_is_refused(workspace: Workspace) -> None:
    write_wd(workspace.models / "taggers" / "wd-test", rows=ROWS[:-1])
    with pytest.raises(WrongShape, match="the tag list has 10 tags"):
        contract(tagger(workspace, "wd-test"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tag,kind\na,0\n", "columns name and category and has tag, kind"),
        ("name,category\na,77\n", "line 2 has the category '77'"),
        ("", "has nothing"),
        ("name,category\na\n", "line 2"),
        ('name,category\n"a,0\n' + "b,0\n" * 40_000, "field larger"),
    ],
)
def test_a_tag_list_with_wrong_columns_says_which(workspace: Workspace, text: str, words: str) -> None:
    found = tagger(workspace, "wd-test")
    (found.folder / "selected_tags.csv").write_text(text)
    with pytest.raises(WrongVocabulary, match=words):
        contract(found)


def test_a_model_without_its_tag_list_is_unknown(workspace: Workspace) -> None:
    found = tagger(workspace, "wd-test")
    (found.folder / "selected_tags.csv").unlink()
    with pytest.raises(UnknownTagger, match="wd-test"):
        contract(found)


def test_thresholds_are_kept_with_the_model(workspace: Workspace) -> None:
    found = tagger(workspace, "wd-test")
    assert found.thresholds()["general"] == 0.35
    found.keep({"general": 0.5}, ["character"])
    assert tagger(workspace, "wd-test").thresholds() == {**found.spec().thresholds, "general": 0.5}
    assert Path(found.folder, "thresholds.json").is_file()
    assert found.mcut() == ("character",)
    for wrong in ("[1]", "{", '{"treshold": {}}'):
        Path(found.folder, "thresholds.json").write_text(wrong)
        with pytest.raises(FileError, match=r"thresholds\.json"):
            found.thresholds()
