"""Node packs through the real server and worker: listed, run, heard, served, and off by default."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from engine.workspace import Workspace
from studio.doctor import _packs
from studio.kinds import job_kinds
from studio.server import open_app
from studio.settings import StudioSettings
from tests.studio.conftest import PATIENCE, Served
from tests.studio.test_prompt import ended, messages_until_end

pytestmark = pytest.mark.slow


@pytest.fixture
def client(packed: Served) -> Iterator[httpx.Client]:
    with packed.client() as client:
        yield client


def showing(kind: str, **inputs: Any) -> dict[str, Any]:
    return {
        "1": {"class_type": kind, "inputs": inputs},
        "2": {"class_type": "ShowAnything", "inputs": {"source": ["1", 0]}},
    }


def test_packs_are_listed_with_what_is_wrong_and_their_nodes_are_in_object_info(client: httpx.Client) -> None:
    found = client.get("/custom_nodes").json()
    packs = {pack["name"]: pack for pack in found["packs"]}
    assert found["enabled"] is True
    assert "docs/custom-nodes.md" in packs["broken"]["error"] and packs["one_file"]["nodes"] == ["Twice"]
    info = client.get("/object_info").json()
    assert {"Counter", "TypedBrighten", "KSampler"} <= set(info)
    assert list(client.get("/object_info/Twice").json()) == ["Twice"]


def test_the_doctor_names_packs_and_why_one_was_not_loaded(client: httpx.Client, packed: Served) -> None:
    client.get("/custom_nodes")
    rows = [what for _, what, _ in _packs(packed.app.workspace)]
    assert rows[0] == "node packs: answers, lists, one_file, typed, utility"
    assert rows[1].startswith("the node pack broken was not loaded: ModuleNotFoundError: 'comfy.ldm' is not among")


def test_choices_are_those_of_now(client: httpx.Client, packed: Served) -> None:
    (packed.app.workspace.input / "new.txt").write_text("x")
    info = client.get("/object_info/FileChooser").json()["FileChooser"]
    assert info["input"]["required"]["file"][0] == ["a.txt", "new.txt"]
    (packed.app.workspace.input / "later.txt").write_text("x")
    assert client.post("/prompt", json={"prompt": showing("PlainChooser", file="later.txt")}).status_code == 200
    refused = client.post("/prompt", json={"prompt": showing("PlainChooser", file="never.txt")})
    assert refused.json()["node_errors"]["1"]["errors"][0]["type"] == "value_not_in_list"


def test_a_prompt_of_packs_runs_and_their_messages_reach_their_page(packed: Served, client: httpx.Client) -> None:
    with connect(f"{packed.ws}?clientId=p") as socket, connect(f"{packed.ws}?clientId=q") as other:
        prompt = showing("Repeat", value=1, times=3)
        made = client.post("/prompt", json={"prompt": prompt, "client_id": "p"}).json()["prompt_id"]
        heard = messages_until_end(socket, made)
        assert ended(client, made)["outputs"]["2"]["text"][0] == "4"
        assert ("utility.shown", {"node": "2", "text": "4"}) in heard
        told = json.loads(other.recv(timeout=PATIENCE))
        while told["type"] == "status":
            told = json.loads(other.recv(timeout=PATIENCE))
        assert told["type"] == "utility.shown"


def test_text_of_a_running_node_is_a_binary_frame(packed: Served, client: httpx.Client) -> None:
    with connect(f"{packed.ws}?clientId=t") as socket:
        made = client.post("/prompt", json={"prompt": showing("Say", text="语"), "client_id": "t"}).json()["prompt_id"]
        frames = [data["data"] for name, data in messages_until_end(socket, made) if name == "<binary>"]
    assert frames == [struct.pack(">II", 3, 1) + b"1" + "语".encode()]


TOKENS = {"auth_token_comfy_org": "eyJ-a-token-of-somebody", "api_key_comfy_org": "comfyui-key-0123456789"}


def paid(client: httpx.Client, refused: bool, save: str = "") -> tuple[str, dict[str, Any]]:
    """The id of a prompt that has run with tokens, and its history."""
    prompt = showing("Paid", refused=refused, invoice=1)
    if save:
        prompt["8"] = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
        prompt["9"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": save}}
    sent = {**TOKENS, "comfy_usage_source": "a program", "extra_pnginfo": {"workflow": {"id": "w", "nodes": []}}}
    made = client.post("/prompt", json={"prompt": prompt, "extra_data": sent}).json()["prompt_id"]
    return made, ended(client, made)


def test_tokens_of_other_services_reach_the_nodes_that_ask_for_them_and_nothing_else(
    packed: Served, client: httpx.Client
) -> None:
    known = [hashlib.sha256(token.encode()).hexdigest()[:12] for token in TOKENS.values()]
    made, entry = paid(client, refused=False, save="paid")
    assert entry["outputs"]["2"]["text"][0] == "/".join([*known, "a program"])
    failed, told = paid(client, refused=True)
    error = next(data for event, data in told["status"]["messages"] if event == "execution_error")
    assert error["exception_message"] == "the service refused *** and ***"
    answers = [
        client.get(path).text for path in ("/history", "/queue", "/internal/logs", "/api/jobs", "/studio/jobs?states=")
    ]
    answers += [client.get(f"/api/jobs/{job}").text + client.get(f"/studio/jobs/{job}").text for job in (made, failed)]
    files = [path.read_bytes() for path in packed.app.workspace.root.rglob("*") if path.is_file()]
    assert any(b"a program" in content for content in files)  # the store itself is among them
    for token in TOKENS.values():
        assert not any(token in answer for answer in answers)
        assert not any(token.encode() in content for content in files)


def test_a_prompt_without_tokens_has_none_of_another(client: httpx.Client) -> None:
    paid(client, refused=False)
    made = client.post("/prompt", json={"prompt": showing("Paid", refused=False, invoice=2)}).json()["prompt_id"]
    none = hashlib.sha256(b"None").hexdigest()[:12]
    assert ended(client, made)["outputs"]["2"]["text"][0] == f"{none}/{none}/None"


@pytest.mark.parametrize("token", [5, ["x"], {"a": 1}, True])
def test_a_token_that_is_no_text_is_refused(client: httpx.Client, token: Any) -> None:
    body = {"prompt": showing("Paid", refused=False, invoice=3), "extra_data": {"api_key_comfy_org": token}}
    answer = client.post("/prompt", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request"


def test_old_nodes_are_replaced_before_they_are_judged(client: httpx.Client) -> None:
    assert client.get("/node_replacements").json()["TypedBrightenOld"][0]["new_node_id"] == "TypedBrighten"
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "TypedBrightenOld", "inputs": {"image": ["1", 0], "amount": 1.0}},
        "3": {"class_type": "ShowAnything", "inputs": {"source": ["2", 0]}},
    }
    answer = client.post("/prompt", json={"prompt": prompt})
    assert "missing_node_type" not in answer.text
    assert {e["extra_info"]["input_name"] for e in answer.json()["node_errors"]["2"]["errors"]} == {"mode", "seed"}


def test_what_packs_serve_to_the_editor_stays_in_their_folder(client: httpx.Client) -> None:
    assert client.get("/extensions").json() == ["/extensions/utility/utility.js"]
    answer = client.get("/extensions/utility/utility.js")
    assert answer.text.startswith("console.log") and "javascript" in answer.headers["content-type"]
    for path in ("/extensions/utility/..%2f__init__.py", "/extensions/utility//etc/passwd", "/extensions/lists/x.js"):
        assert client.get(path).status_code in (400, 404), path


def test_the_editor_loads_scripts_of_packs_beside_ours_where_it_finds_its_own(client: httpx.Client) -> None:
    listed = client.get("/comfy/api/extensions").json()
    assert listed == ["/extensions/easel/bridge.js", "/extensions/utility/utility.js"]
    for url in listed:
        answer = client.get(f"/comfy{url}")
        assert answer.status_code == 200 and "javascript" in answer.headers["content-type"], url
    assert client.get("/comfy/scripts/app.js").status_code == 200  # what `../../scripts/app.js` of a script leads to
    for path in ("utility/..%2f__init__.py", "utility/%2e%2e/%2e%2e/__init__.py", "utility//etc/passwd", "none/x.js"):
        assert client.get(f"/comfy/extensions/{path}").status_code in (400, 404), path


def test_packs_are_off_unless_the_owner_turned_them_on(tmp_path: Path) -> None:
    app = open_app(Workspace(tmp_path), StudioSettings(), job_kinds(), lambda _: None)
    try:
        assert app.nodes.packs() == [] and not app.nodes.custom
    finally:
        app.jobs.close()
