"""The catalogue: /object_info's shape, on disk and back, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.graph.catalogue import Catalogue
from engine.graph.node import In, NodeContext, node
from engine.graph.registry import Registry
from engine.workspace import Workspace
from tests.graph.graph_toys import registry


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path).create()


def test_an_entry_has_object_infos_shape(workspace):
    (workspace.input / "a.png").touch()
    (workspace.input / "b.txt").touch()
    assert Catalogue.of(registry()).object_info_of("Files", workspace)["Files"] == {
        "input": {
            "required": {
                "image": [["a.png"], {"image_upload": True}],
                "model": [workspace.list_models("checkpoints"), {"tooltip": "Which one."}],
            }
        },
        "input_order": {"required": ["image", "model"]},
        "output": ["IMAGE"],
        "output_is_list": [False],
        "output_name": ["IMAGE"],
        "name": "Files",
        "display_name": "Files",
        "description": "",
        "python_module": "tests.graph.graph_toys",
        "category": "toys",
        "output_node": False,
    }


def test_optional_inputs_lists_and_hidden_ones_are_told(workspace):
    info = Catalogue.of(registry()).object_info(workspace)
    assert info["Typed"]["input_order"] == {
        "required": ["steps", "cfg", "text", "on", "mode"],
        "optional": ["many", "image"],
    }
    assert info["Typed"]["input"]["required"]["cfg"] == ["FLOAT", {"default": 8.0, "min": 0.0, "max": 10.0}]
    assert info["Range"]["output_is_list"] == [True, False]
    assert info["Range"]["output_name"] == ["INT", "count"]
    assert info["Own"]["input"]["hidden"] == {"unique_id": "UNIQUE_ID"}
    assert info["Switch"]["input"]["required"]["on_true"] == ["*", {"lazy": True}]
    assert "Secret" not in info


def test_it_comes_back_from_disk_as_it_was(workspace):
    made = Catalogue.of(registry())
    path = made.save(workspace.cache)
    found = Catalogue.load(workspace.cache)
    assert found is not None
    assert found.object_info(workspace) == made.object_info(workspace)
    assert found["Even"].custom == ("value",)
    assert found["Secret"].internal
    path.rename(path.with_name("catalogue-1-0000.json"))
    assert Catalogue.load(workspace.cache) is None


def test_a_broken_file_counts_as_none(workspace):
    Catalogue.of(registry()).save(workspace.cache).write_text("{")
    assert Catalogue.load(workspace.cache) is None


def test_reading_it_needs_no_torch(workspace):
    Catalogue.of(registry()).save(workspace.cache)
    code = (
        "import sys; from pathlib import Path; from engine.graph.catalogue import Catalogue; "
        "from engine.graph.validation import validate; from engine.graph.job import GenerateSettings; "
        "from engine.graph.metadata import read_metadata; from engine.workspace import Workspace; "
        f"c = Catalogue.load(Path({str(workspace.cache)!r})); "
        f"assert validate({{'1': {{'class_type': 'Show', 'inputs': {{'value': 1}}}}}}, c, "
        f"Workspace(Path({str(workspace.root)!r}))).outputs == ['1']; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_two_nodes_of_one_name_are_refused():
    found = registry()
    with pytest.raises(ValueError, match="two nodes are called 'Add'"):
        found.add(found["Add"].call)


def test_an_input_without_in_is_refused():
    @node("Wrong", category="toys")
    def wrong(ctx: NodeContext, value: int) -> None: ...

    with pytest.raises(TypeError, match="'value' needs Annotated"):
        Registry([wrong])


def test_choices_must_be_ones_that_a_server_can_make_again(workspace):
    catalogue = Catalogue.of(Registry())
    assert json.loads(catalogue.save(workspace.cache).read_text()) == {}
    from typing import Annotated

    @node("Lambda", category="toys")
    def hidden_choices(ctx: NodeContext, value: Annotated[str, In(lambda workspace: ["a"])]) -> None: ...

    hidden_choices.__annotations__["value"] = Annotated[str, In(lambda workspace: ["a"])]
    with pytest.raises(TypeError, match="choices must be"):
        Catalogue.of(Registry([hidden_choices])).save(workspace.cache)
