"""The routes of the page's live parts."""

from __future__ import annotations

import io
import json
import os
import time
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from engine.dataset.library import Library
from studio.app import App
from tests.tabs.datasets import captions, edit, png, shown


def test_the_list_names_datasets_taggers_and_presets(client: TestClient, pictures: list[int]) -> None:
    listed = client.get("/studio/datasets").json()
    assert listed["names"] == ["set"]
    assert [one["name"] for one in listed["taggers"]] == ["tagger", "endpoint"]
    assert {"demo", "wd-swinv2-tagger-v3-script"} <= {one["name"] for one in listed["presets"]}
    assert listed["draft"] == {"current": "set"}


def test_pictures_come_as_short_rows_and_captions_on_demand(client: TestClient, pictures: list[int]) -> None:
    found = shown(client)
    assert found["total"] == 3 and [row[2] for row in found["pictures"]] == ["blue.png", "green.png", "red.png"]
    edit(client, "decide", pictures=pictures[:1], tag="sea, deep blue", state=1)
    assert captions(client, pictures) == ["sea, deep blue", "", ""]
    assert client.get(f"/studio/datasets/set/thumb/{pictures[0]}").headers["content-type"] == "image/webp"


def test_an_edit_can_be_undone_and_done_again(client: TestClient, pictures: list[int]) -> None:
    edit(client, "decide", pictures=pictures, tag="one", state=1)
    assert shown(client)["undo"] == "+ one"
    assert edit(client, "undo") == {"event": "+ one"} and captions(client, pictures) == ["", "", ""]
    assert shown(client)["redo"] == "+ one"
    assert edit(client, "redo") == {"event": "+ one"} and captions(client, pictures) == ["one"] * 3
    assert edit(client, "redo") == {"event": ""}


def test_a_filter_chooses_and_one_half_typed_is_no_failure(client: TestClient, pictures: list[int]) -> None:
    edit(client, "decide", pictures=pictures[1:], tag="warm", state=1)
    assert [row[0] for row in shown(client, "-warm")["pictures"]] == pictures[:1]
    wrong = shown(client, "warm OR (")["wrong"]
    assert wrong["code"] == "BadFilter" and wrong["zh"]


def test_the_order_of_review_puts_decided_pictures_last(client: TestClient, pictures: list[int]) -> None:
    edit(client, "decide", pictures=pictures[:1], tag="done", state=1)
    assert [row[0] for row in shown(client, order="review")["pictures"]] == [*pictures[1:], pictures[0]]


def test_a_bulk_edit_is_shown_before_it_is_made(client: TestClient, pictures: list[int]) -> None:
    edit(client, "decide", pictures=pictures, tag="cat", state=1)
    wanted = {"action": "replace", "find": "cat", "replace": "black cat"}
    plan = edit(client, "bulk", **wanted, apply=False)
    assert plan["total"] == 3
    assert plan["changes"][0] == {
        "name": "blue.png", "added": ["black cat"], "removed": ["cat"], "before": None, "after": None,
    }  # fmt: skip
    assert captions(client, pictures) == ["cat"] * 3
    assert edit(client, "bulk", **wanted, apply=True, expected=plan["digest"]) == {"changed": True}
    assert captions(client, pictures) == ["black cat"] * 3


def test_a_bulk_edit_that_would_do_something_else_by_now_is_refused(client: TestClient, pictures: list[int]) -> None:
    wanted = {"action": "add", "find": "new", "replace": ""}
    plan = edit(client, "bulk", **wanted)
    edit(client, "decide", pictures=pictures[:1], tag="new", state=1)
    answer = client.post("/studio/datasets/set/bulk", json={**wanted, "apply": True, "expected": plan["digest"]})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "PlanOutdated"


def test_rules_make_the_captions_and_a_mistyped_one_is_refused(client: TestClient, pictures: list[int]) -> None:
    edit(client, "decide", pictures=pictures[:1], tag="cat, sofa, blurry", state=1)
    rules = {"trigger_word": "sks", "blacklist": ["blur*"], "replacements": {"cat": "kitten"}, "order": "as read"}
    edit(client, "rules", **rules)
    assert captions(client, pictures[:1]) == ["sks, kitten, sofa"]
    answer = client.post("/studio/datasets/set/rules", json={"blacklst": []})
    assert answer.status_code == 400 and "blacklist" in answer.json()["error"]["en"]


def test_an_export_tells_what_it_wrote_and_what_it_left(app: App, client: TestClient, pictures: list[int]) -> None:
    edit(client, "decide", pictures=pictures, tag="one", state=1)
    assert edit(client, "export", suffix=".txt") == {"done": 3, "unchanged": 0, "problems": []}
    (app.workspace.datasets / "set" / "red.txt").write_text("by hand", encoding="utf-8")
    report = edit(client, "export", suffix=".txt")
    assert (report["done"], report["unchanged"]) == (0, 2)
    assert [problem["path"] for problem in report["problems"]] == ["red.txt"] and report["problems"][0]["zh"]
    assert edit(client, "export", suffix=".txt", overwrite=True)["done"] == 1


def test_pictures_can_be_taken_out_and_brought_back(app: App, client: TestClient, pictures: list[int]) -> None:
    edit(client, "remove", pictures=pictures[:1])
    assert shown(client)["total"] == 2
    assert (app.workspace.datasets / "set" / "blue.png").is_file()
    edit(client, "undo")
    assert shown(client)["total"] == 3


@pytest.mark.parametrize(
    ("name", "data"), [("a.png", b""), ("a.png", b"not a picture"), ("a.exe", png("red")), ("cut.png", png("red")[:40])]
)
def test_a_bad_upload_says_why(client: TestClient, pictures: list[int], name: str, data: bytes) -> None:
    answer = client.post("/studio/datasets/set/upload", files={"file": (name, data)})
    assert answer.status_code == 400
    assert name in answer.json()["error"]["en"] and name in answer.json()["error"]["zh"]
    assert shown(client)["total"] == 3


@pytest.mark.parametrize(
    ("action", "body"), [("decide", {"tag": " ", "state": 1}), ("decide", {"tag": "x", "state": 5}), ("dance", {})]
)
def test_a_wrong_edit_is_refused(client: TestClient, pictures: list[int], action: str, body: dict[str, Any]) -> None:
    assert client.post(f"/studio/datasets/set/{action}", json=body).status_code == 400


def test_a_dataset_that_is_not_there_is_a_404(client: TestClient) -> None:
    assert client.get("/studio/datasets/nothing").status_code == 404


def test_drafts_of_the_dataset_tab_are_kept(app: App, client: TestClient) -> None:
    client.post("/studio/datasets/draft", json={"filter": "cat", "tag.general": "0.2"})
    client.post("/studio/datasets/draft", json={"filter": ""})
    assert app.drafts.get("dataset") == {"filter": "", "tag.general": "0.2"}


def test_a_run_that_waits_has_no_curve_and_no_samples_yet(client: TestClient) -> None:
    assert client.get("/studio/runs/later/metrics").json() == {"rows": []}
    assert client.get("/studio/runs/later/samples").json() == {"steps": [], "prompts": [], "pictures": {}}
    assert client.get("/studio/runs/..%2Fx/metrics").status_code in (400, 404)


def test_a_curve_is_thinned_and_a_line_half_written_is_passed_over(app: App, client: TestClient) -> None:
    folder = app.workspace.runs / "one"
    folder.mkdir(parents=True)
    rows = [json.dumps({"step": i, "loss": float(i % 2)}) for i in range(1, 1201)]
    (folder / "metrics.jsonl").write_text("\n".join([*rows, '{"step": 12']), encoding="utf-8")
    found = client.get("/studio/runs/one/metrics").json()["rows"]
    assert len(found) == 600 and {row["loss"] for row in found} == {0.5} and found[-1]["step"] == 1200


def test_the_gallery_finds_pictures_newest_first_and_makes_thumbnails(app: App, client: TestClient) -> None:
    for i, name in enumerate(("old.png", "子 new.png")):
        path = app.workspace.output / name
        path.write_bytes(png("red", (800, 400)))
        os.utime(path, (1000 + i, 1000 + i))
    listed = client.get("/studio/pictures").json()["pictures"]
    assert [row["filename"] for row in listed] == ["子 new.png", "old.png"]
    assert [r["filename"] for r in client.get("/studio/pictures", params={"q": "NEW"}).json()["pictures"]] == [
        "子 new.png"
    ]
    thumb = client.get("/studio/thumb", params={"filename": "子 new.png", "type": "output"})
    assert Image.open(io.BytesIO(thumb.content)).size == (384, 192)
    assert client.get("/studio/picture", params={"filename": "../x.png"}).status_code == 400


def test_the_models_list_names_a_broken_file_with_its_error(app: App, client: TestClient) -> None:
    folder = app.workspace.models / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "broken.safetensors").write_text("hello")
    rows = {row["name"]: row for row in client.get("/studio/models").json()["models"]}
    assert rows["broken.safetensors"]["error"]["zh"]
    assert rows["easel-demo.safetensors"]["family"] == "Stable Diffusion 1.x"


def test_the_page_asks_for_newer_scripts_and_has_all_words(client: TestClient) -> None:
    assert client.get("/studio/static/main.js").headers["cache-control"] == "no-cache"
    words = client.get("/studio/words.json").json()
    assert words["en"]["tab.train"] == "Train" and words["zh"]["tab.train"] == "训练"


def test_ten_thousand_pictures_are_listed_within_a_second(app: App, client: TestClient, pictures: list[int]) -> None:
    with Library(app.workspace).open("set") as dataset, dataset.store.writing():
        for i in range(10_000):
            facts = {"width": 64, "height": 64, "mode": "RGB", "format": "PNG", "bytes": 1}
            picture = dataset.store.add_picture(f"{i:032x}", **facts)
            dataset.store.put_file(f"many/{i:05}.png", picture, 1, 1)
    began = time.process_time()
    found = shown(client)
    assert found["total"] == 10_003
    assert time.process_time() - began < 3


def test_a_captioner_is_offered_with_its_form_and_its_prompt_is_shown(client: TestClient, app: App) -> None:
    folder = app.workspace.models / "captioners" / "joy"
    folder.mkdir(parents=True)
    config = {"model_type": "llava", "vision_config": {"model_type": "siglip_vision_model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (row,) = [one for one in client.get("/studio/datasets").json()["taggers"] if one["name"] == "joy"]
    assert row["tool"] == {"kind": "joycaption", "model": "joy"} and "Llama" in row["note"]["en"]
    asked = client.post("/studio/tools/prompt", json={**row["tool"], "type": "Straightforward", "length": "any"}).json()
    assert asked["prompt"].startswith("Write a straightforward caption for this image.")
    wrong = client.post("/studio/tools/prompt", json={**row["tool"], "length": "endless"})
    assert wrong.status_code == 400 and "very short" in wrong.json()["error"]["en"]
    assert "joycaption" in [form["kind"] for form in client.get("/studio/tools").json()["tools"]]
