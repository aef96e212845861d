"""A V3 pack: its schemas are in /object_info in the V1 shape, and its nodes do what they say."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from engine.custom.packs import told
from engine.graph.catalogue import Catalogue
from engine.graph.metadata import read_metadata
from engine.graph.replacement import replaced
from tests.custom.conftest import Packs
from tests.custom.test_v1 import nodes

PICTURE = ("EmptyImage", {"width": 16, "height": 8, "batch_size": 1, "color": 0x404040})


def shown(packs: Packs, kind: str, slot: int = 0, inputs: dict[str, Any] | None = None, **more: Any) -> str:
    prompt = nodes(n1=PICTURE, n2=(kind, inputs or {}), n9=("TypedShow", {"value": ["2", slot]}), **more)
    outcome = packs.run(prompt)
    assert outcome.status == "success", outcome.error
    return outcome.outputs["9"]["text"][0]


@pytest.fixture(scope="module")
def info(loaded: Packs) -> dict[str, Any]:
    return Catalogue.of(loaded.host.registry).object_info(loaded.workspace)


def test_a_schema_has_object_infos_shape(info: dict[str, Any]) -> None:
    found = info["TypedBrighten"]
    assert found["input"] == {
        "required": {
            "image": ["IMAGE", {"tooltip": "What to brighten."}],
            "factor": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 3.0, "step": 0.1, "display": "slider"}],
            "mode": ["COMBO", {"options": ["add", "multiply"], "default": "multiply"}],
            "seed": [
                "INT",
                {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True, "advanced": True},
            ],
        },
        "optional": {"mask": ["MASK", {}]},
        "hidden": {"unique_id": "UNIQUE_ID", "extra_pnginfo": "EXTRA_PNGINFO"},
    }
    assert found["output"] == ["IMAGE", "FLOAT"] and found["output_name"] == ["IMAGE", "mean"]
    assert found["output_tooltips"] == ["", "How bright it is."]
    assert (found["display_name"], found["category"]) == ("Brighten", "typed/image")
    assert found["search_aliases"] == ["light"] and found["experimental"] is True
    assert found["python_module"] == "custom_nodes.typed"


def test_sockets_of_several_and_of_dependent_types_have_comfyuis_names(info: dict[str, Any]) -> None:
    required = info["TypedCombine"]["input"]["required"]
    assert required["text"] == ["STRING,INT,FLOAT", {"default": "x"}]
    kind, options = required["how"]
    assert kind == "COMFY_DYNAMICCOMBO_V3"
    assert options["options"][1] == {
        "key": "join",
        "inputs": {"required": {"between": ["STRING", {"default": "-"}]}},
    }
    template = info["TypedBatch"]["input"]["required"]["images"][1]["template"]
    assert template == {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image_", "min": 1, "max": 4}
    choose = info["TypedChoose"]
    assert choose["input"]["required"]["a"] == [
        "COMFY_MATCHTYPE_V3",
        {"lazy": True, "template": {"template_id": "T", "allowed_types": "*"}},
    ]
    assert choose["output"] == ["COMFY_MATCHTYPE_V3"]
    assert info["TypedSlow"]["output"] == ["TYPED_DATA", "INT"]


def test_a_broken_schema_costs_only_its_node(packs: Packs) -> None:
    assert "TypedBroken" not in packs.pack("typed").nodes
    (problem,) = packs.pack("typed").problems
    assert problem.startswith("Broken: ") and "['a'] occur twice" in problem


def test_it_executes_with_hidden_values_on_the_class(packs: Packs) -> None:
    inputs = {"image": ["1", 0], "factor": 2.0, "mode": "multiply", "seed": 1}
    assert float(shown(packs, "TypedBrighten", 1, inputs).split()[0]) == pytest.approx(2 * 64 / 255, abs=1e-6)


def test_own_checks_and_combos_are_judged(packs: Packs) -> None:
    def types(**changed: Any) -> list[str]:
        inputs = {"image": ["1", 0], "factor": 1.0, "mode": "add", "seed": 0, **changed}
        prompt = nodes(n1=PICTURE, n2=("TypedBrighten", inputs), n9=("TypedShow", {"value": ["2", 0]}))
        return [error["type"] for error in packs.judge(prompt).node_errors["2"]["errors"]]

    assert set(types(factor=2.5)) == {"custom_validation_failed"}
    assert types(image=["1", 4]) == ["exception_during_inner_validation"]


def test_a_node_keeps_no_state(packs: Packs) -> None:
    prompt = nodes(n2=("TypedKeepsState", {}), n9=("TypedShow", {"value": ["2", 0]}))
    outcome = packs.run(prompt)
    assert outcome.status == "error" and "keeps no state" in str(outcome.error)


def test_a_list_that_grows_comes_as_a_dict(packs: Packs) -> None:
    assert shown(packs, "TypedBatch", 1, {"images.image_0": ["1", 0], "images.image_1": ["1", 0]}) == "2 []"


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"how": "repeat", "how.times": 3, "text": "ab"}, "ababab []"),
        ({"how": "join", "how.between": "+", "text": "abc"}, "a+b+c []"),
        ({"how": "repeat", "how.times": 2, "text": ["3", 0]}, "77 []"),
    ],
)
def test_a_choice_brings_its_inputs(packs: Packs, inputs: dict[str, Any], text: str) -> None:
    assert shown(packs, "TypedCombine", 0, inputs, n3=("PrimitiveInt", {"value": 7})) == text


def test_matching_types_pass_and_only_the_chosen_side_runs(packs: Packs) -> None:
    inputs = {"choose_b": False, "a": ["3", 0], "b": ["4", 0]}
    more = {"n3": ("PrimitiveInt", {"value": 7}), "n4": ("PrimitiveInt", {"value": 8})}
    assert shown(packs, "TypedChoose", 0, inputs, **more) == "7 []"
    assert "4" not in packs.ran()


def test_it_expands_into_nodes_with_dependent_inputs(packs: Packs) -> None:
    assert shown(packs, "TypedExpand", 0, {"text": "z", "times": 4}) == "zzzz []"


def test_a_closed_gate_stops_what_follows_and_says_why(packs: Packs) -> None:
    prompt = nodes(
        n1=PICTURE, n2=("TypedGate", {"open": False, "value": ["1", 0]}), n9=("TypedShow", {"value": ["2", 0]})
    )
    outcome = packs.run(prompt)
    assert outcome.status == "success" and outcome.outputs == {}
    (message,) = [data["exception_message"] for event, data in packs.events if event == "execution_error"]
    assert message == "Execution Blocked: the gate is closed"


def test_progress_and_previews_are_told_from_either_api(packs: Packs) -> None:
    assert shown(packs, "TypedSlow", 1, {"steps": 3}) == "3 []"
    told_steps = [(data["node"], data["value"], data["max"]) for event, data in packs.events if event == "progress"]
    assert told_steps == [("2", 1, 3), ("2", 2, 3), ("2", 3, 3), ("9", 1, 1)]
    assert packs.previews == [((6, 4), "9")]


def test_a_node_may_accept_whatever_it_is_sent(packs: Packs) -> None:
    prompt = nodes(n3=("PrimitiveInt", {"value": 7}), n9=("TypedShow", {"value": ["3", 0], "extra": 5, "x": ["3", 0]}))
    assert packs.run(prompt).outputs["9"]["text"] == ["7 [('extra', 5), ('x', 7)]"]


def test_pictures_are_saved_with_their_workflow(packs: Packs) -> None:
    prompt = nodes(
        n1=("EmptyImage", {"width": 16, "height": 8, "batch_size": 2, "color": 0}),
        n2=("TypedSave", {"images": ["1", 0], "prefix": "v3/t"}),
    )
    outcome = packs.run(prompt, extra_pnginfo={"workflow": {"id": 3}})
    first, second = outcome.outputs["2"]["images"]
    assert first == {"filename": "t_00002_.png", "subfolder": "v3", "type": "output"}
    path = packs.workspace.output / "v3" / second["filename"]
    assert read_metadata(path).prompt == prompt and read_metadata(path).workflow == {"id": 3}
    with Image.open(packs.workspace.output / "v3" / "t_00001_.webp") as moving:
        assert moving.n_frames in (1, 2) and moving.size == (16, 8)  # pyright: ignore[reportAttributeAccessIssue]
    assert outcome.outputs["2"]["animated"] == [False]


def test_nodes_that_are_gone_are_replaced_as_the_pack_says(packs: Packs) -> None:
    rows = told(packs.host, packs.packs, "")["replacements"]
    assert rows[0]["old_node_id"] == "TypedBrightenOld"
    old = nodes(n2=("TypedBrightenOld", {"image": ["1", 0], "amount": 1.5}))
    new = replaced(old, packs.host.replacements, Catalogue.of(packs.host.registry))
    assert new["2"] == {"class_type": "TypedBrighten", "inputs": {"image": ["1", 0], "factor": 1.5}}
