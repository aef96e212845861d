"""What clients and editors ask, in the shapes that they know."""

from __future__ import annotations

import base64
import json

import httpx
import pytest

from engine.errors import EaselError
from studio.comfy.requests import error_response
from tests.studio.conftest import Served
from tests.studio.test_files import opened, png
from tests.studio.test_prompt import ended

PATHS = """
/prompt /queue /history /object_info /object_info/Show /system_stats /features /models /models/checkpoints /embeddings
/extensions /users /settings /i18n /workflow_templates /experiment/models /jobs /v2/userdata /global_subgraphs
/node_replacements /internal/folder_paths /internal/files/output
"""


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_every_route_answers_at_the_root_and_under_api(client: httpx.Client, prefix: str) -> None:
    for path in PATHS.split():
        answer = client.get(prefix + path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].startswith("application/json")


def test_object_info_is_the_catalogue(client: httpx.Client) -> None:
    shown = client.get("/object_info").json()
    assert list(shown) == ["Number", "Show", "Hold", "OpenPicture"]
    assert shown["Number"]["input"]["required"]["value"] == ["INT", {"default": 1, "min": 0, "max": 2**64 - 1}]
    assert client.get("/object_info/Show").json() == {"Show": shown["Show"]}
    assert client.get("/object_info/NotANode").json() == {}


def test_system_stats_tell_of_the_machine_and_the_device(client: httpx.Client) -> None:
    found = client.get("/system_stats").json()
    assert {"os", "ram_total", "ram_free", "comfyui_version", "python_version", "pytorch_version"} <= set(
        found["system"]
    )
    assert found["devices"][0] == {
        "name": "CPU",
        "type": "cpu",
        "index": None,
        "vram_total": 4,
        "vram_free": 3,
        "torch_vram_total": 4,
        "torch_vram_free": 3,
    }


def test_models_are_listed_by_folder_with_their_metadata(client: httpx.Client, served: Served) -> None:
    header = json.dumps({"__metadata__": {"ss_tag": "x"}}).encode()
    loras = served.app.workspace.models / "loras"
    (loras / "中文").mkdir(exist_ok=True)
    (loras / "中文" / "a b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (loras / "text.safetensors").write_bytes(b"not a model at all")
    (loras / "notes.txt").write_text("x")
    assert client.get("/models/loras").json() == ["text.safetensors", "中文/a b.safetensors"]
    row = client.get("/experiment/models/loras").json()[1]
    assert row["name"] == "中文/a b.safetensors" and row["pathIndex"] == 0 and row["size"] == len(header) + 8
    query = {"filename": "中文/a b.safetensors"}
    assert client.get("/view_metadata/loras", params=query).json() == {"ss_tag": "x"}
    for name in ("text.safetensors", "none.safetensors", "../../access.json", "../x.safetensors", ""):
        assert client.get("/view_metadata/loras", params={"filename": name}).status_code == 404
    assert client.get("/models/nope").status_code == 404
    assert client.get("/experiment/models/nope").status_code == 404


def test_settings_of_the_editor_are_kept(client: httpx.Client) -> None:
    assert client.get("/settings/never.set").json() is None
    assert client.post("/settings/ref.test", json=5).status_code == 200
    assert client.post("/settings", json={"a": [1], "b": None}).status_code == 200
    assert client.get("/settings/ref.test").json() == 5
    assert client.get("/settings").json() == {"ref.test": 5, "a": [1], "b": None}
    assert client.post("/settings", json=[1]).status_code == 400
    assert client.post("/settings", json={"a": "x" * 3_000_000}).status_code == 413


def test_files_of_the_user_are_written_read_moved_and_deleted(client: httpx.Client) -> None:
    assert client.get("/userdata", params={"dir": "workflows"}).status_code == 404
    assert client.post("/userdata/workflows%2F小猫.json", content=b"{}").json() == "workflows/小猫.json"
    assert client.get("/userdata/workflows%2F小猫.json").json() == {}
    assert client.post("/userdata/workflows%2F小猫.json?overwrite=false", content=b"1").status_code == 409
    assert client.get("/userdata", params={"dir": "workflows"}).json() == ["小猫.json"]
    full = client.get("/userdata", params={"dir": "workflows", "full_info": "true"}).json()[0]
    assert full["path"] == "小猫.json" and full["size"] == 2
    assert client.get("/v2/userdata", params={"path": "workflows"}).json()[0]["type"] == "file"
    moved = client.post("/userdata/workflows%2F小猫.json/move/workflows%2Fb.json")
    assert moved.json() == "workflows/b.json"
    assert client.delete("/userdata/workflows%2Fb.json").status_code == 204
    assert client.get("/userdata/workflows%2Fb.json").status_code == 404


@pytest.mark.parametrize("name", ["..%2F..%2Faccess.json", "%2e%2e%2faccess.json", "%252e%252e%252faccess.json", ".x"])
def test_user_files_stay_in_their_folder(client: httpx.Client, name: str) -> None:
    for answer in (
        client.get(f"/userdata/{name}"),
        client.post(f"/userdata/{name}", content=b"x"),
        client.delete(f"/userdata/{name}"),
        client.post(f"/userdata/a.json/move/{name}"),
        client.get("/userdata", params={"dir": "../.."}),
        client.get("/v2/userdata", params={"path": "..%2f.."}),
    ):
        assert answer.status_code in (400, 404, 405)
        assert b"secret" not in answer.content


def test_a_page_in_the_user_folder_is_served_as_text(client: httpx.Client) -> None:
    client.post("/userdata/x.html", content=b"<script>alert(1)</script>")
    assert client.get("/userdata/x.html").headers["content-type"].startswith("text/plain")


def test_the_studios_own_api_says_how_it_stands_and_takes_jobs(client: httpx.Client) -> None:
    status = client.get("/studio/status").json()
    assert status["worker"] == "ready" and status["jobs"]["queued"] == 0
    wrong = client.post("/studio/jobs", json={"kind": "generat", "settings": {}})
    assert wrong.status_code == 400 and "generate" in wrong.json()["error"]["en"]
    mistyped = client.post("/studio/jobs", json={"kind": "generate", "settings": {"promt": {}}})
    assert mistyped.status_code == 400 and "'prompt'" in mistyped.json()["error"]["en"]
    empty = client.post("/studio/jobs", json={"kind": "generate", "settings": {"prompt": {}}})
    assert empty.status_code == 400 and empty.json()["error"]["type"] == "PromptRefused"
    show = {"class_type": "Show", "inputs": {"value": ["1", 0]}}
    prompt = {"1": {"class_type": "Number", "inputs": {"value": 3}}, "2": show}
    made = client.post("/studio/jobs", json={"kind": "generate", "settings": {"prompt": prompt}}).json()
    assert made["settings"]["outputs"] == ["2"]
    assert client.get(f"/studio/jobs/{made['id']}").json()["kind"] == "generate"
    assert client.post(f"/studio/jobs/{made['id']}/explode").status_code == 400
    assert client.get("/studio/jobs/none").status_code == 404
    assert any(event["job_id"] == made["id"] for event in client.get("/studio/events").json())


def test_what_is_not_for_programs_is_refused_to_tokens(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.app.access.new_token('a program')}"}
    with served.client() as person, served.client(headers=headers) as program:
        for path in ("/internal/logs", "/internal/logs/raw", "/api/internal/logs"):
            assert person.get(path).status_code == 200
            answer = program.get(path)
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "OwnerOnly")
        assert program.patch("/internal/logs/subscribe", json={}).status_code == 403
        assert program.get("/internal/folder_paths").status_code == 200
        own = {"Authorization": f"Bearer {served.app.access.passing_token('command line')}"}
        assert program.get("/internal/logs", headers=own).status_code == 200


def test_a_model_has_a_picture_beside_it_or_in_its_metadata(client: httpx.Client, served: Served) -> None:
    loras = served.app.workspace.models / "loras"
    thumbnail = "data:image/png;base64," + base64.b64encode(png((600, 300))).decode()
    for name, metadata in (
        ("with", {"modelspec.thumbnail": thumbnail}),
        ("without", {}),
        ("odd", {"ssmd_cover_images": "x"}),
    ):
        header = json.dumps({"__metadata__": metadata}).encode()
        (loras / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (loras / "beside.safetensors").write_bytes(b"x")
    (loras / "beside.png").write_bytes(png((20, 10)))
    for name, size in (("with", (512, 256)), ("beside", (20, 10))):
        answer = client.get(f"/experiment/models/preview/loras/0/{name}.safetensors")
        assert answer.headers["content-type"] == "image/webp" and opened(answer).size == size
    for path in (
        "loras/0/without.safetensors",
        "loras/0/odd.safetensors",
        "loras/7/with.safetensors",
        "nope/0/x",
        "loras/0/x",
    ):
        assert client.get(f"/experiment/models/preview/{path}").status_code == 404


def test_folders_that_nothing_here_reads_are_known_and_empty(client: httpx.Client) -> None:
    assert {"gligen", "custom_nodes", "loras"} <= set(client.get("/models").json())
    assert client.get("/models/gligen").json() == [] == client.get("/experiment/models/gligen").json()


def test_tokens_are_made_shown_once_listed_and_revoked_by_the_owner_only(served: Served) -> None:
    from starlette.applications import Starlette

    from studio.gate import Gate
    from studio.live import tokens
    from tests.studio.conftest import running

    app = Starlette(routes=tokens.routes(served.app), exception_handlers={EaselError: error_response})
    with running(Gate(app, served.app.access)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as person:
        made = person.post("/tokens", json={"name": "my script"}).json()
        assert made["token"].startswith("easel_") and made["token"] not in json.dumps(person.get("/tokens").json())
        row = next(row for row in person.get("/tokens").json()["tokens"] if row["name"] == "my script")
        assert set(row) == {"id", "name", "created"}
        program = {"Authorization": f"Bearer {made['token']}"}
        for answer in (
            person.get("/tokens", headers=program),
            person.post("/tokens", json={"name": "another"}, headers=program),
            person.post(f"/tokens/{row['id']}/revoke", headers=program),
        ):
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "OwnerOnly")
        for name in ("", " ", "x" * 61, "owner", "Local", "a\nb"):
            answer = person.post("/tokens", json={"name": name})
            assert (answer.status_code, answer.json()["error"]["type"]) == (400, "BadTokenName")
        assert person.post(f"/tokens/{row['id']}/revoke").status_code == 200
        assert person.post(f"/tokens/{row['id']}/revoke").status_code == 404
        assert served.app.access.token_name(made["token"]) is None


def test_a_job_says_by_which_token_it_came(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.app.access.new_token('krita')}"}
    prompt = {"1": {"class_type": "Hold", "inputs": {"seconds": 0, "mode": "sleep"}}}
    with served.client(headers=headers) as program, served.client() as person:
        made = program.post("/prompt", json={"prompt": prompt, "client_id": "canvas"}).json()["prompt_id"]
        mine = person.post("/prompt", json={"prompt": prompt}).json()["prompt_id"]
        job = person.get(f"/studio/jobs/{made}").json()
        assert (job["user"], job["client_id"]) == ("krita", "canvas")
        assert person.get(f"/studio/jobs/{mine}").json()["user"] == "local"


def test_queue_history_and_jobs_can_be_those_of_one_user(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.app.access.new_token('painter')}"}
    holding = {"1": {"class_type": "Hold", "inputs": {"seconds": 30, "mode": "sleep"}}}
    quick = {"1": {"class_type": "Hold", "inputs": {"seconds": 0, "mode": "sleep"}}}
    with served.client(headers=headers) as program, served.client() as person:
        first = person.post("/prompt", json={"prompt": holding}).json()["prompt_id"]
        theirs = [program.post("/prompt", json={"prompt": quick}).json()["prompt_id"] for _ in range(2)]
        mine = person.post("/prompt", json={"prompt": quick}).json()["prompt_id"]

        def waiting(client: httpx.Client, who: str) -> list[str]:
            return [row[1] for row in client.get(f"/queue{who}").json()["queue_pending"]]

        assert waiting(program, "?user=me") == theirs and waiting(person, "?user=painter") == theirs
        assert waiting(person, "?user=me") == [mine] and waiting(program, "") == [*theirs, mine]
        assert program.get("/queue?user=me").json()["queue_running"] == []
        person.post("/interrupt", json={"prompt_id": first})
        ended(person, mine)
        assert list(program.get("/history?user=me").json()) == theirs
        rows = program.get("/api/jobs?user=me").json()
        assert [row["id"] for row in rows["jobs"]] == theirs[::-1] and rows["pagination"]["total"] == 2
        assert person.get("/history?user=nobody").json() == {}
