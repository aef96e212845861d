"""The executor with toy nodes: what runs, in which order, what is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from engine.errors import Cancelled
from engine.graph.cache import ClassicCache, LruCache, NoCache
from engine.graph.errors import NodeFailed
from tests.graph.graph_toys import Runner, text

PAIR = {"1": {"Const": {"value": 2}}, "2": {"Add": {"a": ["1", 0], "b": 3}}, "3": {"Show": {"value": ["2", 0]}}}


def test_only_what_the_outputs_need_runs():
    runner = Runner()
    outcome = runner.run({**PAIR, "4": {"Const": {"value": 9}}, "5": {"Noop": {"value": ["4", 0]}}})
    assert runner.ran() == ["1", "2", "3"]
    assert text(outcome) == {"3": "5"}
    assert outcome.status == "success"


def test_messages_come_in_comfyuis_order():
    runner = Runner()
    runner.run({"1": {"Steps": {"value": 2}}, "2": {"Show": {"value": ["1", 0]}}})
    assert runner.names(without=()) == [
        "execution_start",
        "execution_cached",
        "progress_state",
        "executing",
        "progress_state",
        "progress",
        "progress_state",
        "progress",
        # the finish changes nothing but the state
        "progress_state",
        "progress_state",
        "executing",
        "executed",
        "progress_state",
        "execution_success",
    ]
    assert runner.data("executing")[0] == {"node": "1", "display_node": "1", "prompt_id": "prompt-1"}
    assert runner.data("progress")[1] == {"value": 2, "max": 2, "node": "1", "prompt_id": "prompt-1"}
    assert runner.data("executed")[0] == {
        "node": "2",
        "display_node": "2",
        "output": {"text": ["2"]},
        "prompt_id": "prompt-1",
    }
    state: dict[str, Any] = {}
    for changes in runner.data("progress_state"):
        assert changes["prompt_id"] == "prompt-1"
        state.update(changes["nodes"])
    assert state == {
        node: {
            "value": value,
            "max": value,
            "state": "finished",
            "node_id": node,
            "prompt_id": "prompt-1",
            "display_node_id": node,
            "parent_node_id": None,
            "real_node_id": node,
        }
        for node, value in (("1", 2), ("2", 1))
    }


def test_the_history_is_in_comfyuis_shape():
    outcome = Runner().run(PAIR).to_json()
    assert outcome["outputs"] == {"3": {"text": ["5"]}}
    assert outcome["meta"] == {"3": {"node_id": "3", "display_node": "3", "parent_node": None, "real_node_id": "3"}}
    assert outcome["status"]["status_str"] == "success"
    assert outcome["status"]["completed"] is True
    assert [name for name, _ in outcome["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]
    assert set(outcome["messages"][0][1]) == {"prompt_id", "timestamp"}


def test_nodes_near_an_output_go_first_as_in_comfyui():
    """The order that the reference system recorded for two chained loaders, two encoders, a sampler and two outputs."""
    runner = Runner()
    prompt = {
        "1": {"Const": {"value": 1}},
        "2": {"Add": {"a": ["1", 0], "b": ["1", 0]}},
        "3": {"Add": {"a": ["2", 0], "b": ["2", 0]}},
        "4": {"Noop": {"value": ["3", 0]}},
        "5": {"Const": {"value": 5}},
        "7": {"Add": {"a": ["4", 0], "b": ["5", 0]}},
        "8": {"Show": {"value": ["7", 0]}},
        "9": {"Noop": {"value": ["7", 0]}},
        "10": {"Show": {"value": ["9", 0]}},
    }
    runner.run(prompt)
    assert runner.ran() == ["5", "1", "2", "3", "4", "7", "8", "9", "10"]


def test_a_node_two_users_share_runs_once():
    runner = Runner()
    runner.run({**PAIR, "4": {"Show": {"value": ["1", 0]}}})
    assert sorted(runner.ran()) == ["1", "2", "3", "4"]


def test_the_same_prompt_again_runs_nothing_and_shows_its_outputs_again():
    runner = Runner()
    runner.run(PAIR)
    outcome = runner.run(PAIR)
    assert runner.ran() == []
    assert runner.data("execution_cached")[0]["nodes"] == ["1", "2", "3"]
    assert text(outcome) == {"3": "5"}
    assert runner.names() == ["execution_start", "execution_cached", "executed", "execution_success"]


def test_a_changed_constant_runs_only_what_hangs_on_it():
    runner = Runner()
    runner.run(PAIR)
    outcome = runner.run({**PAIR, "2": {"Add": {"a": ["1", 0], "b": 4}}})
    assert runner.ran() == ["2", "3"]
    assert text(outcome) == {"3": "6"}


def test_node_ids_do_not_matter_to_the_cache():
    runner = Runner()
    runner.run(PAIR)
    outcome = runner.run(
        {"a": {"Const": {"value": 2}}, "b": {"Add": {"b": 3, "a": ["a", 0]}}, "c": {"Show": {"value": ["b", 0]}}}
    )
    assert runner.ran() == []
    assert text(outcome) == {"c": "5"}


def test_equal_nodes_of_one_prompt_run_once():
    runner = Runner()
    runner.run(
        {
            "1": {"Const": {"value": 1}},
            "2": {"Const": {"value": 1}},
            "3": {"Add": {"a": ["1", 0], "b": ["2", 0]}},
            "4": {"Show": {"value": ["3", 0]}},
        }
    )
    assert len(runner.ran()) == 3


@pytest.mark.parametrize("kind", ["Own", "Twice"])
def test_nodes_that_say_so_are_told_apart_by_id(kind):
    runner = Runner()
    inputs = {"value": 1} if kind == "Twice" else {}
    prompt = {
        "1": {kind: inputs},
        "2": {kind: inputs},
        "3": {"Show": {"value": ["1", 0]}},
        "4": {"Show": {"value": ["2", 0]}},
    }
    runner.run(prompt)
    assert {"1", "2"} <= set(runner.ran())


def test_classic_forgets_what_the_last_prompt_did_not_have():
    runner = Runner(ClassicCache())
    runner.run(PAIR)
    runner.run({"9": {"Show": {"value": 1}}})
    runner.run(PAIR)
    assert runner.ran() == ["1", "2", "3"]


def test_lru_remembers_older_prompts():
    runner = Runner(LruCache(max_entries=4))
    runner.run(PAIR)
    runner.run({"9": {"Show": {"value": 1}}})
    runner.run(PAIR)
    assert runner.ran() == []
    runner.run({"7": {"Const": {"value": 7}}, "8": {"Show": {"value": ["7", 0]}}})
    runner.run({"9": {"Show": {"value": 1}}})
    assert runner.ran() == ["9"]


def test_without_a_cache_everything_runs_and_nothing_is_held():
    runner = Runner(NoCache())
    runner.run(PAIR)
    outcome = runner.run(PAIR)
    assert runner.ran() == ["1", "2", "3"]
    assert text(outcome) == {"3": "5"}


def test_without_a_cache_lazy_inputs_and_expansions_work():
    runner = Runner(NoCache())
    outcome = runner.run(
        {
            "1": {"Const": {"value": 1}},
            "2": {"Expand": {"value": ["1", 0], "times": 3}},
            "3": {"Switch": {"switch": True, "on_true": ["2", 0], "on_false": ["1", 0]}},
            "4": {"Show": {"value": ["3", 0]}},
            "5": {"Show": {"value": ["1", 0]}},
        }
    )
    assert text(outcome)["4"] == "4"
    assert text(outcome)["5"] == "1"


def test_a_fingerprint_decides_whether_a_node_changed():
    runner = Runner(live={"stamp": 1})
    prompt = {"1": {"Stamped": {}}, "2": {"Show": {"value": ["1", 0]}}}
    runner.run(prompt)
    runner.run(prompt)
    assert runner.ran() == []
    runner.live["stamp"] = 2
    assert text(runner.run(prompt)) == {"2": "2"}


def test_a_failing_fingerprint_counts_as_changed():
    runner = Runner(live={"stamp": 1})
    prompt = {"1": {"Stamped": {}}, "2": {"Show": {"value": 0}}}
    runner.run(prompt)
    runner.live.clear()
    outcome = runner.run({"1": {"Stamped": {}}, "2": {"Show": {"value": ["1", 0]}}})
    assert outcome.status == "error"  # it ran again, and missed its stamp


def test_nan_is_never_cached():
    runner = Runner()
    prompt = {"1": {"Fresh": {"value": 1}}, "2": {"Show": {"value": ["1", 0]}}, "3": {"Const": {"value": 1}}}
    runner.run(prompt)
    runner.run(prompt)
    assert runner.ran() == ["1", "2"]


def test_lazy_inputs_are_computed_only_when_asked_for():
    runner = Runner()
    prompt = {
        "1": {"Const": {"value": 1}},
        "2": {"Fail": {"value": 2}},
        "3": {"Switch": {"switch": True, "on_true": ["1", 0], "on_false": ["2", 0]}},
        "4": {"Show": {"value": ["3", 0]}},
    }
    outcome = runner.run(prompt)
    assert text(outcome) == {"4": "1"}
    assert runner.ran() == ["3", "1", "3", "4"]  # asked, waited, ran


def test_a_lazy_input_that_is_a_constant_needs_no_waiting():
    runner = Runner()
    outcome = runner.run(
        {
            "3": {"Switch": {"switch": False, "on_true": ["9", 0], "on_false": 7}},
            "4": {"Show": {"value": ["3", 0]}},
            "9": {"Fail": {"value": 1}},
        }
    )
    assert text(outcome) == {"4": "7"}


def test_lists_are_mapped_and_the_shorter_one_repeats_its_last():
    runner = Runner()
    outcome = runner.run(
        {
            "1": {"Range": {"count": 3}},
            "2": {"Range": {"count": 2}},
            "3": {"Add": {"a": ["1", 0], "b": ["2", 0]}},
            "4": {"Show": {"value": ["3", 0]}},
        }
    )
    assert outcome.outputs["4"]["text"] == ["0", "2", "3"]


def test_a_node_that_takes_lists_gets_them_whole():
    outcome = Runner().run(
        {"1": {"Range": {"count": 5}}, "2": {"Total": {"values": ["1", 0]}}, "3": {"Show": {"value": ["2", 0]}}}
    )
    assert outcome.outputs["3"]["text"] == ["10"]


def test_an_empty_list_makes_no_calls_and_empty_outputs():
    outcome = Runner().run(
        {
            "1": {"Range": {"count": 0}},
            "2": {"Add": {"a": ["1", 0], "b": 1}},
            "3": {"Total": {"values": ["2", 0]}},
            "4": {"Show": {"value": ["3", 0]}},
        }
    )
    assert outcome.outputs["4"]["text"] == ["0"]


def test_a_blocker_skips_what_follows_and_its_message_is_told_once():
    runner = Runner()
    outcome = runner.run(
        {
            "1": {"Block": {"message": "closed"}},
            "2": {"Add": {"a": ["1", 0], "b": 1}},
            "3": {"Show": {"value": ["2", 0]}},
            "4": {"Show": {"value": 1}},
        }
    )
    assert outcome.status == "success"
    assert text(outcome) == {"4": "1"}
    errors = runner.data("execution_error")
    assert [(e["node_id"], e["exception_message"], e["exception_type"]) for e in errors] == [
        ("2", "Execution Blocked: closed", "ExecutionBlocked")
    ]


def test_a_silent_blocker_says_nothing():
    runner = Runner()
    outcome = runner.run({"1": {"Block": {"message": ""}}, "2": {"Show": {"value": ["1", 0]}}})
    assert (outcome.status, outcome.outputs, runner.data("execution_error")) == ("success", {}, [])


def test_a_failing_node_ends_the_run_and_says_where_and_why():
    runner = Runner()
    outcome = runner.run(
        {"1": {"Const": {"value": 5}}, "2": {"Fail": {"value": ["1", 0]}}, "3": {"Show": {"value": ["2", 0]}}}
    )
    (error,) = runner.data("execution_error")
    assert outcome.status == "error"
    assert error["node_id"] == "2"
    assert error["node_type"] == "Fail"
    assert error["executed"] == ["1"]
    assert error["exception_type"] == "ValueError"
    assert error["exception_message"] == "no good: 5"
    assert error["current_inputs"] == {"value": [5]}
    assert "graph_toys.py" in error["traceback"][-1]
    assert isinstance(outcome.error, NodeFailed)
    assert "Node 2 (Fail) failed: ValueError: no good: 5" in outcome.error.text()
    assert outcome.to_json()["status"]["status_str"] == "error"
    assert outcome.to_json()["status"]["completed"] is False


def test_what_was_computed_before_a_failure_is_kept():
    runner = Runner()
    runner.run({"1": {"Const": {"value": 5}}, "2": {"Fail": {"value": ["1", 0]}}, "3": {"Show": {"value": ["2", 0]}}})
    runner.run({"1": {"Const": {"value": 5}}, "3": {"Show": {"value": ["1", 0]}}})
    assert runner.ran() == ["3"]


def test_a_result_that_is_no_tuple_is_an_error():
    outcome = Runner().run({"1": {"Bad": {}}, "2": {"Show": {"value": ["1", 0]}}})
    assert "returned int, not a tuple" in str(outcome.error)


def test_an_output_that_was_not_given_is_an_error():
    outcome = Runner().run({"1": {"Const": {"value": 1}}, "2": {"Show": {"value": ["1", 3]}}})
    assert "output 3 of node 1 (Const), which gave 1" in str(outcome.error)


def test_an_interrupt_ends_the_run_at_the_next_node_or_step():
    runner = Runner(cancel_at="1")
    outcome = runner.run({"1": {"Steps": {"value": 5}}, "2": {"Show": {"value": ["1", 0]}}})
    assert outcome.status == "interrupted"
    assert isinstance(outcome.error, Cancelled)
    assert len(runner.data("progress")) == 1
    (told,) = runner.data("execution_interrupted")
    assert (told["node_id"], told["node_type"], told["executed"]) == ("1", "Steps", [])


def test_an_expansion_gives_its_result_and_runs_its_outputs():
    runner = Runner()
    outcome = runner.run({"1": {"Expand": {"value": 10, "times": 3}}, "2": {"Show": {"value": ["1", 0]}}})
    assert text(outcome) == {"1.0.0.4": "13", "2": "13"}
    assert outcome.meta["1.0.0.4"] == {
        "node_id": "1.0.0.4",
        "display_node": "1",
        "parent_node": "1",
        "real_node_id": "1",
    }
    assert runner.data("executing")[1]["display_node"] == "1"


def test_an_expansion_is_found_in_the_cache_node_by_node():
    runner = Runner()
    runner.run({"1": {"Expand": {"value": 10, "times": 3}}, "2": {"Show": {"value": ["1", 0]}}})
    outcome = runner.run({"1": {"Expand": {"value": 10, "times": 4}}, "2": {"Show": {"value": ["1", 0]}}})
    assert text(outcome)["2"] == "14"
    runner.run({"1": {"Expand": {"value": 10, "times": 4}}, "2": {"Show": {"value": ["1", 0]}}})
    assert runner.ran() == []


def test_an_expansion_of_a_node_that_always_runs_keeps_its_parts():
    runner = Runner()
    prompt = {
        "1": {"Fresh": {"value": 3}},
        "2": {"Expand": {"value": 1, "times": 2}},
        "3": {"Add": {"a": ["1", 0], "b": ["2", 0]}},
        "4": {"Show": {"value": ["3", 0]}},
    }
    runner.run(prompt)
    runner.run(prompt)
    assert runner.ran() == ["1", "3", "4"]


def test_some_items_of_a_list_may_expand():
    runner = Runner()
    outcome = runner.run(
        {"1": {"Range": {"count": 4}}, "2": {"ExpandSome": {"value": ["1", 0]}}, "3": {"Show": {"value": ["2", 0]}}}
    )
    assert outcome.outputs["3"]["text"] == ["0", "2", "2", "6"]


@pytest.mark.parametrize(("kind", "path"), [("ExpandCycle", "1.0.0.1"), ("ExpandSelf", "1")])
def test_a_cycle_through_an_expansion_is_an_error_with_its_path(kind, path):
    outcome = Runner().run({"1": {kind: {"value": 1}}, "2": {"Show": {"value": ["1", 0]}}})
    assert outcome.status == "error"
    assert "wait for each other" in str(outcome.error)
    assert path in str(outcome.error)


def test_objects_as_constants_of_an_expansion_are_never_cached():
    runner = Runner()
    prompt = {"1": {"Object": {}}, "2": {"Show": {"value": ["1", 0]}}}
    assert runner.run(prompt).status == "success"


def test_async_nodes_run_beside_each_other():
    runner = Runner(live={"log": []})
    outcome = runner.run(
        {
            "1": {"Wait": {"value": 8}},
            "2": {"Wait": {"value": 2}},
            "3": {"Add": {"a": ["1", 0], "b": ["2", 0]}},
            "4": {"Show": {"value": ["3", 0]}},
        }
    )
    assert text(outcome) == {"4": "10"}
    assert sorted(runner.live["log"][:2]) == ["start 1", "start 2"]
    assert runner.live["log"][2:] == ["end 2", "end 1"]


def test_an_async_node_is_mapped_over_a_list():
    runner = Runner(live={"log": []})
    outcome = runner.run(
        {"1": {"Range": {"count": 3}}, "2": {"Wait": {"value": ["1", 0]}}, "3": {"Show": {"value": ["2", 0]}}}
    )
    assert outcome.outputs["3"]["text"] == ["0", "1", "2"]


def test_an_interrupt_ends_async_nodes():
    runner = Runner(live={"log": []}, cancel_at="1")
    start = time.perf_counter()
    outcome = runner.run({"1": {"Wait": {"value": 2000}}, "2": {"Show": {"value": ["1", 0]}}})
    assert outcome.status == "interrupted"
    assert time.perf_counter() - start < 5  # of the ten that it would take


def test_a_cached_node_with_intermediate_output_shows_it_again():
    runner = Runner()
    prompt = {"1": {"Middle": {"value": 1}}, "2": {"Show": {"value": ["1", 0]}}}
    runner.run(prompt)
    assert text(runner.run(prompt)) == {"1": "middle 1", "2": "1"}
    assert runner.ran() == []


def test_only_the_named_outputs_run():
    runner = Runner()
    outcome = runner.run({**PAIR, "4": {"Show": {"value": 1}}}, outputs=["4"])
    assert runner.ran() == ["4"]
    assert text(outcome) == {"4": "1"}


def test_what_a_prompt_says_beside_the_declared_inputs_is_ignored():
    outcome = Runner().run(
        {"1": {"Const": {"value": 1, "note": "x", "old": ["9", 0]}}, "2": {"Show": {"value": ["1", 0]}}}
    )
    assert text(outcome) == {"2": "1"}


def test_a_wrapped_list_is_a_value_and_no_link():
    outcome = Runner().run({"1": {"Show": {"value": {"__value__": ["2", 0]}}}})
    assert text(outcome) == {"1": "['2', 0]"}


def test_a_warning_is_told_and_kept_in_the_history_and_the_run_goes_on():
    runner = Runner()
    outcome = runner.run({"1": {"Warn": {"value": 3}}, "2": {"Show": {"value": ["1", 0]}}})
    (told,) = (data for event, data in runner.events if event == "easel_warning")
    assert (told["node_id"], told["en"], told["zh"]) == ("1", "3 is odd", "3 很奇怪")
    assert ["easel_warning", told] in outcome.messages and outcome.status == "success"
