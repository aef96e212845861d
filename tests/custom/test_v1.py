"""V1 packs in the style of popular ones: they load through our import surface and do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine.graph.catalogue import Catalogue
from tests.custom.conftest import Packs


def nodes(**short: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{name[1:]}": {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in short.items()}


def shown(packs: Packs, prompt: dict[str, Any], node: str = "9", **extra: Any) -> str:
    outcome = packs.run(prompt, **extra)
    assert outcome.status == "success", outcome.error
    return outcome.outputs[node]["text"][0]


def test_packs_load_and_a_broken_one_is_listed_with_its_traceback(packs: Packs) -> None:
    names = [pack.name for pack in packs.packs]
    assert names == ["answers", "broken", "exits", "lists", "off", "one_file", "typed", "utility"]
    assert packs.pack("off").off and not packs.pack("off").nodes and not packs.pack("off").error
    assert packs.pack("one_file").nodes == ["Twice"]
    assert "comfy.ldm" in packs.pack("broken").error and "docs/custom-nodes.md" in packs.pack("broken").error
    assert "SystemExit: 3" in packs.pack("exits").error
    assert packs.pack("exits").error.splitlines()[1].endswith('packs/exits/__init__.py", line 5, in <module>')
    assert [one.partition(":")[0] for one in packs.pack("utility").problems] == ["NoMethod"]
    assert packs.pack("utility").routes == ["GET /utility/hello/{name}"]
    assert packs.pack("utility").web.endswith("packs/utility/web")


def test_what_they_register_is_in_object_info_as_they_say_it(packs: Packs) -> None:
    info = Catalogue.of(packs.host.registry).object_info(packs.workspace)
    counter = info["Counter"]
    assert counter["input"] == {"required": {"step": ["INT", {"default": 1, "min": 1, "max": 100}]}}
    assert counter["input_order"] == {"required": ["step"]}
    assert (counter["output"], counter["output_name"]) == (["INT"], ["count"])
    assert (counter["display_name"], counter["python_module"]) == ("Count up", "custom_nodes.utility")
    assert info["FileChooser"]["input"]["required"]["file"] == [["a.txt"], {"image_upload": True}]
    assert info["ShowAnything"]["input"]["hidden"]["node"] == "UNIQUE_ID"
    assert info["ShowAnything"]["output"] == ["*"] and info["ShowAnything"]["output_node"] is True
    assert info["MakeList"]["output_is_list"] == [True]
    assert info["LazySwitch"]["input"]["required"]["a"] == ["*", {"lazy": True}]


def test_an_instance_keeps_its_state_from_prompt_to_prompt(packs: Packs) -> None:
    prompt = nodes(n1=("Counter", {"step": 2}), n9=("ShowAnything", {"source": ["1", 0]}))
    assert [shown(packs, prompt) for _ in range(3)] == ["2", "4", "6"]


def test_hidden_inputs_come_under_the_names_that_the_class_gives_them(packs: Packs) -> None:
    prompt = nodes(n9=("ShowAnything", {"source": {"__value__": 5}}))
    outcome = packs.run(prompt, extra_pnginfo={"workflow": 1}, client_id="me")
    assert outcome.outputs["9"]["text"] == ["5", "9", "ShowAnything", "{'workflow': 1}", "True"]
    assert packs.messages == [("utility.shown", {"node": "9", "text": "5"}, None)]


def test_only_the_chosen_side_of_a_lazy_switch_runs(packs: Packs) -> None:
    sides = {"n1": ("Counter", {"step": 1}), "n2": ("Counter", {"step": 5})}
    switch = {"choose_b": True, "a": ["1", 0], "b": ["2", 0]}
    prompt = nodes(**sides, n3=("LazySwitch", switch), n9=("ShowAnything", {"source": ["3", 0]}))
    assert shown(packs, prompt) == "5"
    assert "1" not in packs.ran()


def test_a_switch_takes_links_that_it_does_not_declare(packs: Packs) -> None:
    prompt = nodes(
        n1=("Counter", {"step": 3}), n2=("AnySwitch", {"any_01": ["1", 0]}), n9=("ShowAnything", {"source": ["2", 0]})
    )
    assert shown(packs, prompt) == "3"


def test_what_an_undeclared_link_needs_is_judged_as_well(packs: Packs) -> None:
    prompt = nodes(
        n1=("Counter", {"step": 300}), n2=("AnySwitch", {"any_01": ["1", 0]}), n9=("ShowAnything", {"source": ["2", 0]})
    )
    assert packs.judge(prompt).node_errors["1"]["errors"][0]["type"] == "value_bigger_than_max"


def test_rows_of_a_page_and_slots_without_end_work(packs: Packs) -> None:
    rows = {"lora_1": {"on": True, "strength": 4}, "lora_2": {"on": False, "strength": 9}}
    prompt = nodes(n1=("PowerInputs", {"start": 1, **rows}), n9=("ShowAnything", {"source": ["1", 1]}))
    assert shown(packs, prompt) == "4"


def test_lists_are_made_mapped_and_taken_whole(packs: Packs) -> None:
    prompt = nodes(
        n1=("MakeList", {"count": 5}),
        n2=("OnlyEven", {"value": ["1", 0]}),
        n3=("AddOne", {"value": ["1", 0]}),
        n4=("SumList", {"values": ["3", 0], "factor": 2}),
        n8=("ShowAnything", {"source": ["4", 1]}),
        n9=("ShowAnything", {"source": ["4", 0]}),
    )
    assert shown(packs, prompt) == "30"
    assert packs.run(prompt).outputs["8"]["text"][0] == "4"
    steps = [data for event, data in packs.events if event == "progress"]
    assert steps == []  # all of it was cached
    packs.executor.cache.clear()
    packs.run(prompt)
    steps = [(data["value"], data["max"]) for event, data in packs.events if event == "progress"]
    assert steps == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_blocker_of_a_pack_stops_only_its_item(packs: Packs) -> None:
    prompt = nodes(
        n1=("MakeList", {"count": 3}), n2=("OnlyEven", {"value": ["1", 0]}), n9=("ShowAnything", {"source": ["2", 0]})
    )
    outcome = packs.run(prompt)
    assert [text for text in outcome.outputs["9"]["text"] if text in ("0", "1", "2")] == ["0", "2"]


def test_a_loop_by_expansion_runs_and_is_found_in_the_cache(packs: Packs) -> None:
    prompt = nodes(n1=("Repeat", {"value": 3, "times": 4}), n9=("ShowAnything", {"source": ["1", 0]}))
    assert shown(packs, prompt) == "7"
    packs.run(prompt)
    assert packs.ran() == []


def test_an_async_method_finds_its_call(packs: Packs) -> None:
    prompt = nodes(
        n1=("Counter", {"step": 1}), n2=("SlowAdd", {"value": ["1", 0]}), n9=("ShowAnything", {"source": ["2", 0]})
    )
    assert shown(packs, prompt) == "11"
    assert [data["node"] for event, data in packs.events if event == "progress"] == ["2"]


def test_a_pack_calls_and_inherits_nodes_of_the_studio(packs: Packs) -> None:
    picture = ("EmptyImage", {"width": 32, "height": 32, "batch_size": 1, "color": 255})
    prompt = nodes(
        n1=picture,
        n2=("InvertTwice", {"image": ["1", 0]}),
        n3=("SaveSmall", {"images": ["1", 0], "filename_prefix": "x/y"}),
        n9=("ShowAnything", {"source": ["2", 0]}),
    )
    outcome = packs.run(prompt)
    assert outcome.status == "success", outcome.error
    assert float(outcome.outputs["9"]["text"][0]) < 1e-6
    (saved,) = outcome.outputs["3"]["images"]
    with Image.open(packs.workspace.output / saved["subfolder"] / saved["filename"]) as picture:
        assert (saved["filename"], picture.size) == ("y_small_00001_.png", (8, 8))


def test_own_checks_judge_files_and_types(packs: Packs) -> None:
    checkpoint = packs.workspace.list_models("checkpoints")[0]
    bad = nodes(
        n1=("FileChooser", {"file": "nope.txt", "checkpoint": checkpoint}), n9=("ShowAnything", {"source": ["1", 0]})
    )
    (error,) = packs.judge(bad).node_errors["1"]["errors"]
    assert (error["type"], error["details"]) == ("custom_validation_failed", "file - no such file: nope.txt")
    good = {**bad, "1": {"class_type": "FileChooser", "inputs": {"file": "a.txt", "checkpoint": checkpoint}}}
    assert shown(packs, good).endswith("input/a.txt")


def test_a_node_that_names_input_types_judges_links_itself(packs: Packs) -> None:
    mixed = nodes(
        n1=("Counter", {"step": 1}),
        n2=("Twice", {"text": "x"}),
        n3=("SameType", {"a": ["1", 0], "b": ["2", 0]}),
        n9=("ShowAnything", {"source": ["3", 0]}),
    )
    errors = packs.judge(mixed).node_errors["3"]["errors"]
    assert {error["type"] for error in errors} == {"custom_validation_failed"}
    assert "INT is not STRING" in errors[0]["details"]
    same = {**mixed, "2": {"class_type": "Twice", "inputs": {"text": "y"}}}
    same["3"]["inputs"]["a"] = ["2", 0]
    assert shown(packs, same) == "yy yy"


def test_what_folder_paths_lists_is_what_there_is_now(packs: Packs) -> None:
    from engine.custom.packs import told

    before = told(packs.host, packs.packs, "")
    assert told(packs.host, packs.packs, before["digest"]) == {"digest": before["digest"]}
    new = packs.workspace.input / "b.txt"
    new.write_text("b")
    try:
        after = told(packs.host, packs.packs, before["digest"])
        assert after["entries"]["FileChooser"]["info"]["input"]["required"]["file"][0] == ["a.txt", "b.txt"]
    finally:
        new.unlink()


def test_the_surface_is_no_part_of_a_process_that_has_no_packs() -> None:
    code = "import engine.graph.job, sys; sys.exit('folder_paths' in sys.modules or 'nodes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd"])
def test_names_of_models_stay_in_their_folders(packs: Packs, name: str) -> None:
    import folder_paths  # pyright: ignore[reportMissingImports]

    assert folder_paths.get_full_path("checkpoints", name) is None
