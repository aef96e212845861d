"""Prompts over HTTP and websocket, against a real server and a real worker process."""

from __future__ import annotations

import json
import struct
import time
import uuid
from dataclasses import replace
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from studio.comfy import history
from studio.settings import StudioSettings
from tests.studio.conftest import PATIENCE, Served

NUMBER = {"class_type": "Number", "inputs": {"value": 3}}
SHOW = {"class_type": "Show", "inputs": {"value": ["1", 0]}}


def prompt(**nodes: Any) -> dict[str, Any]:
    return {"1": NUMBER, "2": SHOW, **nodes}


def hold(mode: str = "sleep", seconds: float = 20.0) -> dict[str, Any]:
    return {"9": {"class_type": "Hold", "inputs": {"mode": mode, "seconds": seconds}}}


def ended(client: httpx.Client, prompt_id: str) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = client.get(f"/history/{prompt_id}").json()
        if found:
            return found[prompt_id]
        time.sleep(0.02)
    raise AssertionError("the prompt did not end")


def messages_until_end(socket: Any, prompt_id: str) -> list[tuple[str, dict[str, Any]]]:
    heard = []
    while True:
        message = socket.recv(timeout=PATIENCE)
        if isinstance(message, bytes):
            heard.append(("<binary>", {"data": message}))
            continue
        row = json.loads(message)
        heard.append((row["type"], row["data"]))
        if row["type"] == "executing" and row["data"]["node"] is None and row["data"]["prompt_id"] == prompt_id:
            return heard


def test_a_prompt_runs_and_its_client_hears_it_in_order_with_history_there_at_the_end(served: Served) -> None:
    with served.client() as client, connect(f"{served.ws}?clientId=one") as socket:
        assert json.loads(socket.recv(timeout=PATIENCE)) == {
            "type": "status",
            "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "one"},
        }
        answer = client.post("/prompt", json={"prompt": prompt(), "client_id": "one"})
        assert answer.status_code == 200
        body = answer.json()
        assert body["node_errors"] == {} and set(body) == {"prompt_id", "number", "node_errors"}
        heard = messages_until_end(socket, body["prompt_id"])
        found = client.get(f"/history/{body['prompt_id']}").json()[body["prompt_id"]]
    names = [name for name, _ in heard if name not in ("status", "<binary>", "progress_state")]
    assert names == ["execution_start", "execution_cached", "executing", "executed", "execution_success", "executing"]
    assert found["outputs"] == {"2": {"text": ["2"]}}
    assert found["status"]["status_str"] == "success" and found["status"]["completed"] is True
    assert found["prompt"][1:] == [body["prompt_id"], prompt(), {"client_id": "one"}, ["2"]]


def test_previews_are_plain_until_a_client_announces_that_it_reads_metadata(served: Served) -> None:
    with (
        served.client() as client,
        connect(f"{served.ws}?clientId=p") as plain,
        connect(f"{served.ws}?clientId=q") as rich,
    ):
        rich.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        answers = [json.loads(rich.recv(timeout=PATIENCE)) for _ in range(2)]
        assert answers[1]["type"] == "feature_flags"
        assert answers[1]["data"] == {"supports_preview_metadata": True, "max_upload_size": 100 * 2**20}
        for sid, socket in (("p", plain), ("q", rich)):
            made = client.post("/prompt", json={"prompt": prompt(), "client_id": sid}).json()["prompt_id"]
            frames = [d["data"] for name, d in messages_until_end(socket, made) if name == "<binary>"]
            if sid == "p":
                assert struct.unpack(">II", frames[0][:8]) == (1, 1) and frames[0][8:10] == b"\xff\xd8"
            else:
                kind, length = struct.unpack(">II", frames[0][:8])
                about = json.loads(frames[0][8 : 8 + length])
                assert kind == 4 and frames[0][8 + length :][:2] == b"\xff\xd8"
                assert about["node_id"] == "2" and about["prompt_id"] == made and about["image_type"] == "image/jpeg"


def test_a_client_that_asks_for_changes_hears_each_once_and_others_the_whole_state(served: Served) -> None:
    two = prompt(**{"3": SHOW})
    with (
        served.client() as client,
        connect(f"{served.ws}?clientId=c") as whole,
        connect(f"{served.ws}?clientId=c") as changes,
    ):
        changes.send(json.dumps({"type": "feature_flags", "data": {"easel_progress_changes": True}}))
        while json.loads(changes.recv(timeout=PATIENCE))["type"] != "feature_flags":
            pass
        made = client.post("/prompt", json={"prompt": two, "client_id": "c"}).json()["prompt_id"]
        heard = [messages_until_end(socket, made) for socket in (whole, changes)]
    told = [[data for name, data in messages if name == "progress_state"] for messages in heard]
    names = [name for name, _ in heard[0] if name in ("progress_state", "execution_success")]
    assert names.index("execution_success") == len(names) - 1
    assert {node: state["state"] for node, state in told[0][-1]["nodes"].items()} == {"2": "finished", "3": "finished"}
    assert "changes_only" not in told[0][-1]
    seen: dict[str, str] = {}
    for data in told[1]:
        assert data["changes_only"] is True and data["prompt_id"] == made
        seen.update({node: state["state"] for node, state in data["nodes"].items()})
    assert seen == {"2": "finished", "3": "finished"}


def test_nobody_hears_the_prompt_of_another_by_queueing_under_its_id(served: Served) -> None:
    mine = str(uuid.uuid4())
    with served.client() as client, connect(f"{served.ws}?clientId=owner") as owner:
        slow = {"prompt": hold(seconds=0.5), "prompt_id": mine, "client_id": "owner"}
        assert client.post("/prompt", json=slow).status_code == 200
        again = client.post("/prompt", json={"prompt": prompt(), "prompt_id": mine, "client_id": "thief"})
        assert again.status_code == 400
        assert [name for name, _ in messages_until_end(owner, mine)].count("execution_success") == 1


def test_a_failing_node_ends_in_execution_error_and_an_error_in_history(served: Served) -> None:
    with served.client() as client, connect(f"{served.ws}?clientId=f") as socket:
        made = client.post("/prompt", json={"prompt": hold("fail"), "client_id": "f"}).json()["prompt_id"]
        heard = dict(messages_until_end(socket, made))
        assert "the node failed" in heard["execution_error"]["exception_message"]
        assert heard["execution_error"]["node_id"] == "9"
        assert ended(client, made)["status"]["status_str"] == "error"


def test_a_worker_that_dies_in_a_prompt_ends_the_prompt_and_the_next_one_runs(served: Served) -> None:
    with served.client() as client, connect(f"{served.ws}?clientId=d") as socket:
        made = client.post("/prompt", json={"prompt": hold("die"), "client_id": "d"}).json()["prompt_id"]
        heard = dict(messages_until_end(socket, made))
        assert heard["execution_error"]["exception_type"] == "WorkerDied"
        after = client.post("/prompt", json={"prompt": prompt(), "client_id": "d"}).json()["prompt_id"]
        assert ended(client, after)["status"]["status_str"] == "success"


def test_interrupt_ends_the_running_prompt_and_tells_everybody(served: Served, client: httpx.Client) -> None:
    with connect(f"{served.ws}?clientId=other") as socket:
        made = client.post("/prompt", json={"prompt": hold()}).json()["prompt_id"]
        end = time.monotonic() + PATIENCE
        while not client.get("/queue").json()["queue_running"]:
            assert time.monotonic() < end
        assert client.post("/interrupt", json={"prompt_id": str(uuid.uuid4())}).status_code == 200  # another prompt's
        assert client.get("/queue").json()["queue_running"][0][1] == made
        started = time.monotonic()
        assert client.post("/interrupt").status_code == 200
        found = ended(client, made)
        assert time.monotonic() - started < 10  # of the twenty that it would take
        assert found["status"]["completed"] is False
        while True:
            row = json.loads(socket.recv(timeout=PATIENCE))
            if row["type"] == "execution_interrupted":
                break
        assert row["data"]["prompt_id"] == made


def test_waiting_prompts_can_go_to_the_front_by_number_and_be_deleted(client: httpx.Client) -> None:
    running = client.post("/prompt", json={"prompt": hold()}).json()["prompt_id"]
    try:
        ids = {}
        for name, more in {"a": {}, "b": {}, "first": {"front": True}}.items():
            ids[name] = client.post("/prompt", json={"prompt": prompt(), **more}).json()["prompt_id"]
        lowest = client.get("/queue").json()["queue_pending"][0][0]
        numbered = client.post("/prompt", json={"prompt": prompt(), "number": lowest - 5}).json()
        assert numbered["number"] == float(lowest - 5)
        pending = [row[1] for row in client.get("/queue").json()["queue_pending"]]
        assert pending == [numbered["prompt_id"], ids["first"], ids["a"], ids["b"]]
        assert client.get("/prompt").json() == {"exec_info": {"queue_remaining": 5}}
        client.post("/queue", json={"delete": [ids["a"], "nope", 3]})
        assert ids["a"] not in [row[1] for row in client.get("/queue").json()["queue_pending"]]
        client.post("/queue", json={"clear": True})
        assert client.get("/queue").json()["queue_pending"] == []
        assert client.get(f"/history/{ids['a']}").json() == {}
    finally:
        client.post("/interrupt", json={"prompt_id": running})
        ended(client, running)


BAD_REQUESTS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "invalid_json"),
    "NaN": (b'{"prompt": {"1": NaN}}', "invalid_json"),
    "a nest without end": (b"[" * 100_000, "invalid_json"),
    "nothing": (b"", "no_prompt"),
    "a list": (b"[]", "no_prompt"),
    "no prompt": (b'{"client_id": "x"}', "no_prompt"),
    "an id that is no UUID": (b'{"prompt": {}, "prompt_id": "my-id"}', "invalid_prompt_id"),
    "an id in capitals": (b'{"prompt": {}, "prompt_id": "BEF92177-DCA6-4EA4-9C96-9E5FD4D0BFE2"}', "invalid_prompt_id"),
    "an empty prompt": (b'{"prompt": {}}', "prompt_no_outputs"),
    "targets that are no list": (b'{"prompt": {}, "partial_execution_targets": "3"}', "invalid_request"),
    "extra_data that is no object": (b'{"prompt": {}, "extra_data": [1]}', "invalid_request"),
    "a client id that is no string": (b'{"prompt": {}, "client_id": {}}', "invalid_request"),
    "a number that is none": (b'{"prompt": {}, "number": "first"}', "invalid_request"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_is_answered_400_with_its_type(client: httpx.Client, case: str) -> None:
    body, kind = BAD_REQUESTS[case]
    answer = client.post("/prompt", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == kind and answer.json()["node_errors"] == {}


def test_good_outputs_run_beside_bad_ones_and_targets_choose(client: httpx.Client) -> None:
    both = prompt(**{"3": {"class_type": "Show", "inputs": {}}, "4": SHOW})
    answer = client.post("/prompt", json={"prompt": both, "partial_execution_targets": ["2", "3"]}).json()
    assert list(answer["node_errors"]) == ["3"]
    assert list(ended(client, answer["prompt_id"])["outputs"]) == ["2"]


def test_an_id_is_taken_as_it_is_sent_and_only_once(client: httpx.Client) -> None:
    mine = str(uuid.uuid4())
    assert client.post("/prompt", json={"prompt": prompt(), "prompt_id": mine}).json()["prompt_id"] == mine
    again = client.post("/prompt", json={"prompt": prompt(), "prompt_id": mine})
    assert again.status_code == 400 and again.json()["error"]["type"] == "invalid_prompt_id"


def test_large_seeds_survive_the_way_there_and_back(client: httpx.Client) -> None:
    big = prompt(**{"1": {"class_type": "Number", "inputs": {"value": 2**64 - 1}}})
    made = client.post("/prompt", json={"prompt": big}).json()["prompt_id"]
    assert ended(client, made)["prompt"][2]["1"]["inputs"]["value"] == 2**64 - 1


def test_secrets_of_other_services_are_not_kept(client: httpx.Client) -> None:
    extra = {"auth_token_comfy_org": "secret", "extra_pnginfo": {"workflow": {"id": "w"}}}
    made = client.post("/prompt", json={"prompt": prompt(), "extra_data": extra}).json()["prompt_id"]
    assert ended(client, made)["prompt"][3] == {"extra_pnginfo": {"workflow": {"id": "w"}}}
    row = client.get(f"/api/jobs/{made}").json()
    assert row["status"] == "completed" and row["workflow_id"] == "w" and row["outputs"] == {"2": {"text": ["2"]}}


def test_history_is_given_oldest_first_and_can_be_cleared(client: httpx.Client) -> None:
    made = [client.post("/prompt", json={"prompt": prompt()}).json()["prompt_id"] for _ in range(3)]
    for prompt_id in made:
        ended(client, prompt_id)
    assert list(client.get("/history", params={"max_items": 2}).json()) == made[1:]
    assert client.post("/history", json={"delete": [made[0], "nope"]}).status_code == 200
    assert client.get(f"/history/{made[0]}").json() == {}
    jobs = client.get("/jobs", params={"status": "completed", "limit": 1}).json()
    assert jobs["jobs"][0]["id"] == made[2] and jobs["pagination"]["has_more"] is True
    client.post("/history", json={"clear": True})
    assert client.get("/history").json() == {}


def test_the_oldest_go_beyond_the_limit_that_the_owner_set_and_10_000_are_the_default(
    served: Served, client: httpx.Client
) -> None:
    assert StudioSettings().limits.history == 10_000
    made = [client.post("/prompt", json={"prompt": prompt()}).json()["prompt_id"] for _ in range(6)]
    for prompt_id in made:
        ended(client, prompt_id)
    limits = served.app.settings.limits.model_copy(update={"history": 3})
    small = replace(served.app, settings=served.app.settings.model_copy(update={"limits": limits}))
    assert history.prune(small) >= 3
    assert list(client.get("/history").json()) == made[3:]
    assert client.get(f"/history/{made[0]}").json() == {}
    assert history.prune(small) == 0


def test_two_clients_of_one_id_both_hear_and_a_client_that_returns_is_told_where_it_stands(served: Served) -> None:
    with (
        served.client() as client,
        connect(f"{served.ws}?clientId=same") as one,
        connect(f"{served.ws}?clientId=same") as two,
    ):
        made = client.post("/prompt", json={"prompt": hold(), "client_id": "same"}).json()["prompt_id"]
        while json.loads(one.recv(timeout=PATIENCE))["type"] != "executing":
            pass
        with connect(f"{served.ws}?clientId=same") as late:
            json.loads(late.recv(timeout=PATIENCE))
            assert json.loads(late.recv(timeout=PATIENCE))["data"]["node"] == "9"
        client.post("/interrupt", json={"prompt_id": made})
        while (row := json.loads(two.recv(timeout=PATIENCE)))["type"] != "execution_interrupted":
            pass
        assert row["data"]["prompt_id"] == made


def test_jobs_are_filtered_by_status_and_workflow_and_sorted_by_how_long_they_took(client: httpx.Client) -> None:
    client.post("/history", json={"clear": True})
    ids = {}
    for name, seconds in (("long", 0.5), ("short", 0.0)):
        extra = {"extra_pnginfo": {"workflow": {"id": name}}}
        body = {"prompt": hold(seconds=seconds), "extra_data": extra}
        ids[name] = client.post("/prompt", json=body).json()["prompt_id"]
        ended(client, ids[name])

    def listed(**query: str) -> list[str]:
        return [row["id"] for row in client.get("/api/jobs", params=query).json()["jobs"]]

    assert listed() == [ids["short"], ids["long"]]
    assert listed(sort_order="asc") == [ids["long"], ids["short"]]
    assert listed(sort_by="execution_duration") == [ids["long"], ids["short"]]
    assert listed(sort_by="execution_duration", sort_order="asc") == [ids["short"], ids["long"]]
    assert listed(workflow_id="short") == [ids["short"]] and listed(workflow_id="none") == []
    assert listed(status="pending,in_progress") == [] and len(listed(status="completed")) == 2
    page = client.get("/api/jobs", params={"limit": 1, "offset": 1}).json()["pagination"]
    assert page == {"offset": 1, "limit": 1, "total": 2, "has_more": False}
    for wrong in ({"status": "done"}, {"sort_by": "size"}, {"sort_order": "up"}):
        answer = client.get("/api/jobs", params=wrong)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "UnknownFilter")


def test_jobs_are_cancelled_one_by_one_or_many_at_once(client: httpx.Client) -> None:
    holding = client.post("/prompt", json={"prompt": hold()}).json()["prompt_id"]
    ids = [client.post("/prompt", json={"prompt": prompt()}).json()["prompt_id"] for _ in range(3)]
    assert client.post(f"/api/jobs/{ids[0]}/cancel").json() == {"cancelled": True}
    assert client.post(f"/api/jobs/{ids[0]}/cancel").json() == {"cancelled": False}
    answer = client.post("/api/jobs/cancel", json={"job_ids": [*ids[1:], "nope"]})
    assert answer.json() == {"cancelled": ids[1:]}
    assert client.post(f"/api/jobs/{uuid.uuid4()}/cancel").status_code == 404
    assert client.post("/api/jobs/cancel", json={"job_ids": "all"}).status_code == 400
    assert client.post(f"/jobs/{holding}/cancel").json() == {"cancelled": True}  # the one that runs
    ended(client, holding)
    assert client.get(f"/api/jobs/{holding}").json()["status"] == "cancelled"


def test_the_log_goes_to_those_who_asked_for_it(served: Served) -> None:
    with served.client() as client, connect(f"{served.ws}?clientId=log") as socket:
        assert client.patch("/internal/logs/subscribe", json={"enabled": True, "clientId": 3}).status_code == 400
        assert client.patch("/internal/logs/subscribe", json={"enabled": True, "clientId": "log"}).status_code == 200
        served.app.supervisor.log.write(b"one line\nhalf a li")
        while (row := json.loads(socket.recv(timeout=PATIENCE)))["type"] != "logs":
            pass
        assert row["data"]["entries"] == [{"t": "", "m": "one line\n"}] and set(row["data"]["size"]) == {"cols", "rows"}
        assert "half a li" in client.get("/internal/logs").json()
        assert client.get("/internal/logs/raw").json()["entries"][-2]["m"] == "one line\n"


def test_a_warning_of_a_node_is_shown_on_it_and_told_in_both_languages(served: Served) -> None:
    with served.client() as client, connect(f"{served.ws}?clientId=warned") as socket:
        asked = {"prompt": hold("warn"), "client_id": "warned"}
        heard = messages_until_end(socket, client.post("/prompt", json=asked).json()["prompt_id"])
    assert ("<binary>", {"data": struct.pack(">II", 3, 1) + b"9odd"}) in heard
    told = next(data for name, data in heard if name == "easel_warning")
    assert (told["node_id"], told["en"], told["zh"]) == ("9", "odd", "奇怪")
