"""What only a real worker shows: loops, caches by strategy, and messages of long prompts, through POST /prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from engine.workspace import Workspace
from studio.kinds import job_kinds
from studio.server import asgi_app, open_app
from studio.settings import StudioSettings
from tests.studio.conftest import Served, running
from tests.studio.test_prompt import ended, messages_until_end

pytestmark = pytest.mark.slow


@contextmanager
def a_studio(space: Path, **settings: Any) -> Iterator[Served]:
    wanted = StudioSettings.model_validate({"device": "cpu", **settings})
    app = open_app(Workspace(space), wanted, job_kinds(), lambda _: None)
    app.supervisor.start()
    try:
        with running(asgi_app(app, with_page=False)) as port:
            yield Served(app, port, [])
    finally:
        app.supervisor.stop()
        app.jobs.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with a_studio(tmp_path_factory.mktemp("space")) as studio:
        yield studio


@pytest.fixture
def client(real: Served) -> Iterator[httpx.Client]:
    with real.client() as client:
        yield client


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def loop(**end: Any) -> dict[str, Any]:
    """ "a", and one "b" more in each of three iterations."""
    start = {"mode": "For", "mode.start_iteration_index": 0, "mode.max_iteration": 3, "mode.step": 1}
    return {
        "first": node("PrimitiveString", value="a"),
        "start": node("StartLoop", **start, cache_iterations=False, initial_iteration_value=["first", 0]),
        "more": node("StringConcatenate", string_a=["start", 4], string_b="b", delimiter=""),
        "end": node(
            "EndLoop", **{"accumulate": False, "output_value": ["more", 0], "next_iteration_value": ["more", 0], **end}
        ),
        "show": node("PreviewAny", source=["end", 0]),
    }


def test_a_loop_runs_in_the_worker_and_its_messages_name_the_nodes_of_the_prompt(
    real: Served, client: httpx.Client
) -> None:
    with connect(f"{real.ws}?clientId=loops") as socket:
        made = client.post("/prompt", json={"prompt": loop(), "client_id": "loops"}).json()["prompt_id"]
        heard = messages_until_end(socket, made)
    assert ended(client, made)["outputs"]["show"]["text"] == ["abbb"]
    ran = [(data["node"], data["display_node"]) for event, data in heard if event == "executing" and data["node"]]
    assert [place for place in ran if place[1] == "more"] == [(f"end.{n}.more", "more") for n in range(3)]
    assert {display for _, display in ran} <= {"first", "start", "more", "end", "show"}
    states = [data["nodes"] for event, data in heard if event == "progress_state"]
    assert states[-1]["end.2.more"]["real_node_id"] == "end" and states[-1]["end.2.more"]["display_node_id"] == "more"


def test_a_loop_gives_all_iterations_and_one_of_none_gives_nothing(client: httpx.Client) -> None:
    every = client.post("/prompt", json={"prompt": loop(accumulate=True)}).json()["prompt_id"]
    assert ended(client, every)["outputs"]["show"]["text"] == ["ab", "abb", "abbb"]
    none = loop()
    none["start"]["inputs"]["mode.max_iteration"] = 0
    empty = client.post("/prompt", json={"prompt": none}).json()["prompt_id"]
    assert ended(client, empty)["status"]["status_str"] == "success"


def test_a_bad_loop_is_refused_with_an_error_of_its_own(client: httpx.Client) -> None:
    broken = loop()
    del broken["end"]
    broken["show"]["inputs"]["source"] = ["more", 0]
    answer = client.post("/prompt", json={"prompt": broken})
    assert answer.status_code == 400
    (error,) = answer.json()["node_errors"]["start"]["errors"]
    assert error["type"] == "loop_without_end" and error["extra_info"] == {"loop_nodes": ["start"]}


def test_a_thousand_nodes_cost_a_client_twenty_whole_states_a_second_at_most(
    real: Served, client: httpx.Client
) -> None:
    wide: dict[str, Any] = {"0": node("PrimitiveInt", value=1)}
    for number in range(1, 1000):
        wide[str(number)] = node("StringConcatenate", string_a=["s", 0], string_b=str(number), delimiter="")
        wide[f"p{number}"] = node("PreviewAny", source=[str(number), 0])
    wide["s"] = node("PrimitiveString", value="x")
    with connect(f"{real.ws}?clientId=wide", max_size=None) as socket:
        begin = time.monotonic()
        made = client.post("/prompt", json={"prompt": wide, "client_id": "wide"}).json()["prompt_id"]
        heard = messages_until_end(socket, made)
        seconds = time.monotonic() - begin
    states = [data["nodes"] for event, data in heard if event == "progress_state"]
    assert 1 <= len(states) <= 20 * seconds + 2
    assert len(states[-1]) == 1999 and {state["state"] for state in states[-1].values()} == {"finished"}


def test_the_owner_can_look_into_the_caches(client: httpx.Client) -> None:
    picture = {"1": node("EmptyImage", width=64, height=32, batch_size=1, color=7)}
    picture["2"] = node("PreviewImage", images=["1", 0])
    ended(client, client.post("/prompt", json={"prompt": picture}).json()["prompt_id"])
    told = client.get("/studio/caches").json()["finals"]
    largest = told["largest"][0]
    assert (told["strategy"], told["entries"], told["bytes"]) == ("ClassicCache", 2, 64 * 32 * 3 * 4)
    assert (largest["type"], largest["outputs"]) == ("EmptyImage", [["Tensor(1, 32, 64, 3)"]])
