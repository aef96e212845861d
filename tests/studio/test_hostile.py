"""What a hostile or broken client, or a workspace with odd files in it, must not be able to do."""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from engine.dataset.library import Library
from engine.dataset.pictures import scan
from engine.dataset.view import View
from engine.errors import InputError, NotFound, OutsideWorkspace, PictureError
from engine.workspace import Workspace
from studio.cli import main
from studio.decoding import NotAPicture, PictureTooLarge, shown
from studio.live.dataset_actions import act
from studio.live.pictures import describe, list_pictures, make_thumbnail
from studio.live.system import list_models
from studio.named import check_named
from tests.studio.conftest import Served

PROMPT = {
    "1": {"class_type": "Number", "inputs": {"value": 3}},
    "2": {"class_type": "Show", "inputs": {"value": ["1", 0]}},
}


@pytest.mark.parametrize("value", ["1e999", "-1e999", '"\\ud800"', '{"\\udfff": 1}'])
def test_numbers_without_end_and_halves_of_characters_are_no_json(client: httpx.Client, value: str) -> None:
    answer = client.post("/prompt", content=f'{{"prompt": {json.dumps(PROMPT)}, "extra_data": {{"x": {value}}}}}')
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_json")
    assert client.post("/studio/jobs", content=f'{{"kind": {value}}}').status_code == 400


def test_whole_characters_that_are_written_as_pairs_are_text(client: httpx.Client) -> None:
    assert client.post("/studio/jobs", content='{"kind": "\\ud83d\\ude00"}').json()["error"]["type"] == "UnknownKind"


def test_a_float_that_is_no_finite_number_is_refused_in_words_that_json_can_say(client: httpx.Client) -> None:
    for value in ("inf", "-Infinity", "nan"):
        node = {"class_type": "Hold", "inputs": {"seconds": value, "mode": "sleep"}}
        answer = client.post("/prompt", json={"prompt": {"1": node}})
        error = answer.json()["node_errors"]["1"]["errors"][0]
        assert (answer.status_code, error["type"]) == (400, "invalid_input_type")
        assert error["extra_info"]["received_value"] == value


@pytest.mark.parametrize(
    "field",
    [
        {"number": 10**400},
        {"number": 1e300},
        {"number": "1"},
        {"extra_data": {"extra_pnginfo": []}},
        {"extra_data": {"extra_pnginfo": ["x"]}},
        {"extra_data": {"extra_pnginfo": "x"}},
    ],
    ids=str,
)
def test_a_wrong_field_is_refused_before_anything_is_queued(client: httpx.Client, field: dict[str, Any]) -> None:
    made = str(uuid.uuid4())
    answer = client.post("/prompt", json={"prompt": PROMPT, "prompt_id": made, **field})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request")
    assert client.get(f"/jobs/{made}").status_code == 404
    assert client.get("/jobs").status_code == 200


def test_a_job_whose_extra_data_is_odd_does_not_break_the_list(client: httpx.Client) -> None:
    for odd in ([], None, "x", {"workflow": []}):
        settings = {"prompt": PROMPT, "extra_data": {"extra_pnginfo": odd}}
        client.post("/studio/jobs", json={"kind": "generate", "settings": settings})
    assert client.get("/jobs").status_code == 200


def test_files_whose_names_are_no_utf8_and_links_to_nowhere_are_left_out_of_lists(
    client: httpx.Client, served: Served
) -> None:
    space = served.app.workspace
    folders = (space.output, space.input, space.models / "loras", space.root / "datasets" / "odd")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (b"\xff\xfe.png", b"\xff.safetensors", b"ok.png", b"ok.safetensors"):
            with open(os.path.join(os.fsencode(folder), name), "wb") as file:
                file.write(b"no picture")
        (folder / "nowhere.png").symlink_to("/nowhere.png")
        (folder / "nowhere.safetensors").symlink_to("/nowhere")
    assert [row["filename"] for row in list_pictures(space.output)] == ["ok.png"]
    assert client.get("/internal/files/output").json() == client.get("/internal/files/input").json()
    assert set(client.get("/internal/files/output").json()) == {"ok.png", "ok.safetensors"}
    assert client.get("/models/loras").json() == ["ok.safetensors"]
    assert client.get("/experiment/models/loras").json()[0]["name"] == "ok.safetensors"
    assert [row["name"] for row in list_models(served.app) if row["folder"] == "loras"] == ["ok.safetensors"]
    assert client.get("/object_info/OpenPicture").status_code == 200
    with Library(space).open("odd") as dataset:
        assert list(scan(dataset).problems) == ["ok.png"]


def test_the_owners_links_to_models_are_used_and_names_that_climb_are_not(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "big.safetensors").write_bytes(b"x")
    space = Workspace(tmp_path / "space").create()
    (space.models / "loras" / "one.safetensors").symlink_to(elsewhere / "big.safetensors")
    (space.models / "loras" / "more").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(elsewhere)
    assert space.list_models("loras") == ["more/big.safetensors", "one.safetensors"]
    for name in space.list_models("loras"):
        assert space.model_path("loras", name).read_bytes() == b"x"
    for name in ("../loras/one.safetensors", str(elsewhere / "big.safetensors"), "a\0", "more\\..\\..\\x", "\\x"):
        with pytest.raises(OutsideWorkspace):
            space.model_path("loras", name)
    for name in ("", "nowhere", "x" * 5000):
        with pytest.raises(NotFound):
            space.model_path("loras", name)


def picture(path: Path, mode: str, size: tuple[int, int], colour: object) -> None:
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]


def test_pictures_of_many_pixels_are_not_decoded_by_the_server(client: httpx.Client, served: Served) -> None:
    path = served.app.workspace.output / "huge.png"
    picture(path, "1", (12000, 12000), 0)
    for query in ({"preview": "webp"}, {"channel": "rgb"}):
        answer = client.get("/view", params={"filename": "huge.png", **query})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "PictureTooLarge")
    with pytest.raises(PictureTooLarge):
        make_thumbnail(path, served.app.workspace.cache)
    answer = client.post("/upload/image", files={"image": ("huge.png", path.read_bytes())})
    assert answer.json()["error"]["type"] == "PictureTooLarge"
    path.unlink()


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("I;16", 0x8040, (128, 128, 128)),
        ("L", 7, (7, 7, 7)),
        ("RGBA", (0, 0, 255, 128), (0, 0, 255, 128)),
        ("LA", (255, 128), (255, 255, 255, 128)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_every_mode_is_shown_as_it_looks(mode: str, colour: object, seen: object, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", mode, (900, 500), colour)
    assert shown(tmp_path / "a.png", "a.png").getpixel((0, 0)) == seen
    small = shown(tmp_path / "a.png", "a.png", longest=100)
    assert (small.getpixel((0, 0)), max(small.size)) == (seen, 100)


def test_a_broken_picture_costs_neither_the_gallery_nor_its_search(client: httpx.Client, served: Served) -> None:
    output = served.app.workspace.output
    picture(output / "good.png", "RGB", (64, 64), "red")
    whole = (output / "good.png").read_bytes()
    for name, data in (("cut.png", whole[:60]), ("odd.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")):
        (output / name).write_bytes(data)
        answer = client.get("/view", params={"filename": name, "preview": "webp;²"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "NotAPicture")
        with pytest.raises(NotAPicture):
            make_thumbnail(output / name, served.app.workspace.cache)
        with pytest.raises(PictureError):
            describe(output / name)
    assert [row["filename"] for row in list_pictures(output, "goo")] == ["good.png"]


def test_a_job_is_moved_before_an_id_or_to_the_end_and_nothing_else(client: httpx.Client, served: Served) -> None:
    settings = {"prompt": PROMPT}
    made = client.post("/studio/jobs", json={"kind": "generate", "settings": settings}).json()["id"]
    for before in ({"x": 1}, [], 3, True):
        answer = client.post(f"/studio/jobs/{made}/move", json={"before": before})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "NotAnId")
    with pytest.raises(sqlite3.Error):
        served.app.jobs.get({"x": 1})  # type: ignore[arg-type]


def test_names_that_are_too_long_and_digits_of_other_kinds_are_no_failure_of_the_server(client: httpx.Client) -> None:
    long = "x" * 5000
    for path in ("/view", "/studio/jobs"):
        assert client.get(path, params={"filename": long, "limit": "²"}).status_code < 500, path
    for path in ("/history", "/jobs", "/studio/events"):
        query = {"max_items": "²", "offset": "-²", "limit": "--1", "since": "²"}
        assert client.get(path, params=query).status_code == 200, path
    paths = f"/userdata/{long} /view_metadata/loras?filename={long}.safetensors /studio/jobs/{long} /models/{long}"
    for path in (*paths.split(), f"/v2/userdata?path={long}", f"/userdata?dir={long}", f"/jobs/{long}"):
        assert client.get(path).status_code in (400, 404), path[:40]
    assert client.post(f"/userdata/{long}", content=b"x").status_code in (400, 404)
    node = {"class_type": "OpenPicture", "inputs": {"image": long}}
    assert client.post("/prompt", json={"prompt": {"1": node}}).status_code == 400


def test_a_failure_of_ours_is_told_as_json(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.comfy.history._jobs", lambda app, request: {}["missing"])
    answer = client.get("/jobs")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "KeyError")


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("caption", {}),
        ("caption", {"picture": "x"}),
        ("caption", {"picture": 10**30}),
        ("decide", {"tag": "a", "state": 1, "pictures": ["x"]}),
        ("remove", {"pictures": 5}),
        ("remove", {"pictures": [[]]}),
    ],
)
def test_what_a_dataset_is_sent_is_refused_when_it_does_not_fit(
    action: str, body: dict[str, Any], tmp_path: Path
) -> None:
    space = Workspace(tmp_path).create()
    with Library(space).create("d") as dataset, pytest.raises(InputError):
        act(action, space, dataset, View(dataset.store), body)


@pytest.mark.skipif(os.name == "nt", reason="folders are made otherwise there")
def test_a_workspace_that_cannot_be_made_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    for command in (["serve", "--no-browser", "--port", "0"], ["tag", str(tmp_path)]):
        assert main([*command, "--workspace", str(tmp_path / "file" / "space")]) == 2
        assert "can't be made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("train", {}),
        ("train", {"dataset": "d"}),
        ("train", {"dataset": "d", "model": "none.safetensors"}),
        ("train", {"dataset": "/nowhere", "model": "m.safetensors"}),
        ("train", {"dataset": "none", "model": "m.safetensors"}),
        ("tag", {"dataset": "none", "tagger": "tagger"}),
        ("tag", {"dataset": "d", "tagger": "none"}),
        ("measure", {"dataset": "none"}),
    ],
)
def test_a_job_that_names_what_is_not_there_is_not_queued(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    space = Workspace(tmp_path).create()
    Library(space).create("d").close()
    (space.models / "checkpoints" / "m.safetensors").touch()
    (space.models / "taggers" / "tagger.onnx").touch()
    with pytest.raises(NotFound):
        check_named(space, kind, settings)
    for dataset in ("d", str(space.datasets / "d")):
        check_named(space, "train", {"dataset": dataset, "model": "m.safetensors"})
    check_named(space, "tag", {"dataset": "d", "tagger": space.list_models("taggers")[0].removesuffix("/model.onnx")})
