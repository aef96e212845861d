"""The routes of the Dataset tab's tools."""

from __future__ import annotations

import base64
import io
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from PIL.ImageOps import mirror
from starlette.testclient import TestClient

from engine.dataset.job import uploads
from engine.dataset.library import Library
from engine.dataset.measures import measure
from engine.dataset.records import Policy, Reading
from engine.dataset.regions import Region, add_regions
from studio.app import App
from studio.comfy.requests import limited
from tests.tabs.datasets import captions, edit, png, shown


def test_the_pages_of_a_long_preview_follow_each_other(client: TestClient, pictures: list[int]) -> None:
    first = edit(client, "bulk", action="add", find="cat", replace="")
    rest = edit(client, "bulk", action="add", find="cat", replace="", **{"from": 1})
    assert rest["total"] == 3 and rest["digest"] == first["digest"]
    assert [change["name"] for change in rest["changes"]] == ["green.png", "red.png"]


def test_tags_are_counted_among_the_pictures_shown_and_among_all(client: TestClient, pictures: list[int]) -> None:
    edit(client, "decide", pictures=pictures, tag="cat", state=1)
    edit(client, "decide", pictures=pictures[:2], tag="sea (deep)", state=1)
    tags = {tag["name"]: tag for tag in shown(client, 'tag:"sea_(deep)"')["tags"]}
    assert (tags["cat"]["n"], tags["cat"]["all"]) == (2, 3)
    assert len(shown(client, tags["sea_(deep)"]["filter"])["pictures"]) == 2


def test_a_known_tag_with_a_comma_is_one_tag(app: App, client: TestClient, pictures: list[int]) -> None:
    with Library(app.workspace).open("set") as dataset:
        dataset.store.decide([(pictures[0], "one,two", 1)], "Comma")
    edit(client, "decide", pictures=pictures[1:], tag="one,two", state=1)
    assert [(tag["name"], tag["n"]) for tag in shown(client)["tags"]] == [("one,two", 3)]


@pytest.mark.parametrize("tag", [":3", ">_<", ";)", "!?", r"\(^o^)/", "-_-", "a,b", 'say_"hi"', "NOT", "tag:x", "红"])
def test_a_tag_of_any_signs_is_found_and_taken_away_alone(
    app: App, client: TestClient, pictures: list[int], tag: str
) -> None:
    with Library(app.workspace).open("set") as dataset:
        dataset.store.decide([(pictures[0], tag, 1), (pictures[1], "!!", 1), (pictures[1], "a", 1)], "Tags")
    words = next(one["filter"] for one in shown(client)["tags"] if one["name"] == tag)
    assert [row[0] for row in shown(client, words)["pictures"]] == pictures[:1]
    plan = edit(client, "bulk", action="remove", find=tag, replace="")
    assert [change["name"] for change in plan["changes"]] == ["blue.png"]


def test_a_filter_of_brackets_in_brackets_is_refused(client: TestClient, pictures: list[int]) -> None:
    for words in ("(" * 3000 + "a" + ")" * 3000, "-" * 5000 + "a"):
        assert "brackets" in shown(client, words)["wrong"]["en"]


def test_a_mask_and_a_crop_are_drawn_and_undone(client: TestClient, pictures: list[int]) -> None:
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (0, 0, 8, 16))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    drawn = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    edit(client, "mask", picture=pictures[0], png=drawn)
    edit(client, "crop", picture=pictures[1], box=[0, 0, 16, 16.2])
    cells = client.get("/studio/datasets/set/cells", params={"ids": ",".join(map(str, pictures))}).json()
    assert [row[4] for row in cells] == [["mask"], [], []]  # a crop of all of it is none
    found = client.get(f"/studio/datasets/set/mask/{pictures[0]}")
    assert Image.open(io.BytesIO(found.content)).getbbox() == (0, 0, 8, 16)
    assert edit(client, "undo")["event"] == "◩ blue.png"
    assert client.get(f"/studio/datasets/set/mask/{pictures[0]}").status_code == 404
    wrong = client.post("/studio/datasets/set/mask", json={"picture": pictures[0], "png": "x,no base64!"})
    assert wrong.status_code == 400 and wrong.json()["error"]["code"] == "NotDrawn"
    wrong = client.post("/studio/datasets/set/crop", json={"picture": pictures[0], "box": [9, 9, 30, 30]})
    assert wrong.json()["error"]["code"] == "BadCrop"


def test_masks_are_made_of_what_a_model_found(app: App, client: TestClient, pictures: list[int]) -> None:
    assert client.post("/studio/datasets/set/masks", json={"pictures": pictures}).json()["error"]["code"] == "NoRegions"
    with Library(app.workspace).open("set") as dataset:
        source = dataset.store.source("captioner:florence").id
        found = {pictures[0]: [Region("Cat", "box", (0, 0, 0.5, 1))], pictures[1]: [Region("dog", "box", (0, 0, 1, 1))]}
        add_regions(dataset.store, source, found)
    assert edit(client, "masks", pictures=pictures, labels=["cat"])["pictures"] == 1
    about = client.get(f"/studio/datasets/set/about/{pictures[0]}").json()
    assert about["mask"] and about["regions"] == [
        {
            "tool": "captioner:florence",
            "source": source,
            "label": "Cat",
            "shape": "box",
            "points": [0, 0, 0.5, 1],
            "outline": [0, 0, 0.5, 0, 0.5, 1, 0, 1],
        }
    ]


def test_regions_are_deleted_one_of_a_source_or_all_and_come_back(
    app: App, client: TestClient, pictures: list[int]
) -> None:
    with Library(app.workspace).open("set") as dataset:
        one, other = (dataset.store.source(f"captioner:{name}").id for name in ("florence", "hand"))
        two = [Region("cat", "box", (0, 0, 0.5, 1)), Region("", "polygon", (0, 0, 0.1, 1, 1, 1 / 3))]
        add_regions(dataset.store, one, {pictures[0]: two, pictures[1]: two[:1]})
        add_regions(dataset.store, other, {pictures[0]: two[1:]})

    def left(picture: int) -> list[tuple[int, str]]:
        found = client.get(f"/studio/datasets/set/about/{picture}").json()["regions"]
        return [(region["source"], region["label"]) for region in found]

    whole = left(pictures[0])
    region = client.get(f"/studio/datasets/set/about/{pictures[0]}").json()["regions"][1]
    single = {name: region[name] for name in ("label", "shape", "points")}
    body = {"pictures": pictures[:1], "source": one, "region": single}
    assert edit(client, "remove_regions", **body)["changed"] and not edit(client, "remove_regions", **body)["changed"]
    assert left(pictures[0]) == [(one, "cat"), (other, "")]
    assert edit(client, "undo")["event"] == "− ⬚ · blue.png" and left(pictures[0]) == whole
    edit(client, "remove_regions", pictures=pictures, source=one)
    assert left(pictures[0]) == [(other, "")] and left(pictures[1]) == []
    assert shown(client, "source:florence")["ids"] == []
    assert edit(client, "undo")["event"] == "− ⬚ florence 3 ▢" and left(pictures[0]) == whole
    edit(client, "remove_regions", pictures=pictures)
    assert left(pictures[0]) == left(pictures[1]) == []
    with Library(app.workspace).open("set") as dataset:  # a model looks again: undo does not take what it found
        add_regions(dataset.store, one, {pictures[1]: [Region("new", "box", (0, 0, 1, 1))]})
    edit(client, "undo")
    assert left(pictures[0]) == whole and left(pictures[1]) == [(one, "cat"), (one, "new")]
    edit(client, "redo")
    assert left(pictures[0]) == [] and left(pictures[1]) == [(one, "new")]


def test_captions_have_versions_votes_and_ways_back(app: App, client: TestClient, pictures: list[int]) -> None:
    began = time.time()
    with Library(app.workspace).open("set") as dataset:
        for tool in ("captioner:x", "captioner:y"):
            dataset.store.write_captions({i: f"{tool[-1]} says {i}" for i in pictures}, "Caption", tool=tool)
    found = client.get("/studio/datasets/set/ask/compare").json()
    assert [w["name"] for w in found["writers"]] == ["captioner:x", "captioner:y"]
    pair = found["pairs"][0]
    edit(client, "vote", left=pair["left"]["id"], right=pair["right"]["id"], better=pair["left"]["id"])
    tally = client.get("/studio/datasets/set/ask/compare").json()["tally"]
    assert tally == {"left": 1, "right": 0, "neither": 0, "open": 2}

    about = client.get(f"/studio/datasets/set/about/{pictures[0]}").json()
    assert [(v["tool"], v["current"]) for v in about["versions"]] == [("captioner:y", True), ("captioner:x", False)]
    edit(client, "restore", picture=pictures[0], version=about["versions"][1]["id"])
    text = lambda: [client.get(f"/studio/datasets/set/about/{i}").json()["text"][0] for i in pictures]  # noqa: E731
    assert text() == ["x", "y", "y"]
    edit(client, "restore_all", source=found["left"], pictures=pictures[1:2])
    assert text() == ["x", "x", "y"]
    edit(client, "restore_all", time=began - 1)
    assert [client.get(f"/studio/datasets/set/about/{i}").json()["text"] for i in pictures] == ["", "", ""]
    events = client.get("/studio/datasets/set/ask/history").json()["events"]
    edit(client, "travel", seq=events[-1]["seq"])
    assert text() == ["x", "x", "x"]
    answer = client.post("/studio/datasets/set/restore", json={"picture": pictures[0], "version": 999})
    assert answer.status_code == 404


def test_taggers_are_merged_and_single_tags_have_thresholds(app: App, client: TestClient, pictures: list[int]) -> None:
    with Library(app.workspace).open("set") as dataset:
        for tool, tags in (("tagger:x", "ab"), ("tagger:y", "bc")):
            source = dataset.store.source(tool, policy=Policy({"general": 0.5}))
            reading = Reading([(tag, "general", 0.8) for tag in tags])
            dataset.store.add_readings(source.id, {pictures[0]: reading})
    x, y = (source["id"] for source in shown(client)["sources"])
    part = {"weight": "1,5", "subtracts": False}
    edit(client, "merge", how="intersection", sources={x: part, y: part})
    assert [tag["name"] for tag in shown(client)["tags"]] == ["b"]
    edit(client, "merge", how="union", sources={y: {**part, "subtracts": True}})
    assert [tag["name"] for tag in shown(client)["tags"]] == ["a"]
    assert edit(client, "undo") == {"event": "Merge"}
    edit(client, "thresholds", source=x, thresholds={}, per_tag={"b": "0.9"})
    assert shown(client)["tags"] == []
    negative = {"how": "union", "sources": {x: {**part, "weight": -1}}}
    for body in ({"how": "best"}, {"how": "vote", "share": 2}, negative):
        assert client.post("/studio/datasets/set/merge", json=body).status_code == 400


def test_a_review_tells_how_good_a_tagger_is_and_moves_its_thresholds(
    app: App, client: TestClient, pictures: list[int]
) -> None:
    names = [f"p{i}" for i in range(6)]
    for i, name in enumerate(names):
        client.post("/studio/datasets/set/upload", files={"file": (f"{name}.png", png("red", (20 + i, 20)))})
    ids = [row[0] for row in shown(client)["pictures"] if row[2].startswith("p")]
    with Library(app.workspace).open("set") as dataset:
        source = dataset.store.source("tagger:x", policy=Policy({"general": 0.5}))
        scores = (0.55, 0.6, 0.65, 0.8, 0.9, 0.95)
        readings = {i: Reading([("hat", "general", score)]) for i, score in zip(ids, scores, strict=True)}
        dataset.store.add_readings(source.id, readings)
    for i, id in enumerate(ids):
        edit(client, "decide", pictures=[id], tag="hat", state=1 if i >= 3 else -1)
    (tagger,) = client.get("/studio/datasets/set/ask/review").json()["taggers"]
    assert tagger["overall"] | {"f1": 0} == {
        "name": "", "shown": "", "filter": "tag:", "accepted": 3, "rejected": 3, "missed": 0,
        "precision": 0.5, "recall": 1.0, "f1": 0, "miss_rate": 0.0,
    }  # fmt: skip
    (suggestion,) = tagger["suggestions"]
    assert (suggestion["name"], suggestion["proposed"], suggestion["f1_then"]) == ("hat", 0.725, 1.0)
    assert edit(client, "suggestions", source=tagger["id"], names=["hat", "other"])["moved"] == 1
    assert shown(client)["sources"][0]["per_tag"] == {"hat": 0.725}
    assert client.get("/studio/datasets/set/ask/review").json()["taggers"][0]["overall"]["precision"] == 1.0


def test_tags_are_completed_from_the_set_and_from_a_list(client: TestClient, pictures: list[int]) -> None:
    edit(client, "decide", pictures=pictures, tag="long hair", state=1)
    listed = b'long_hair,0,4000000,"longhair,lh"\nlong_sleeves,0,1400000,\nhatsune_miku,4,100,"miku"\n'
    kept = client.post("/studio/datasets/tags", files={"file": ("danbooru.csv", listed)})
    assert kept.json() == {"tags": 3, "name": "danbooru.csv"}
    assert client.get("/studio/datasets").json()["lists"] == ["danbooru.csv"]
    ask = lambda q: client.get("/studio/datasets/set/ask/complete", params={"q": q, "list": "danbooru.csv"}).json()  # noqa: E731
    assert [(tag["shown"], tag["own"]) for tag in ask("lon")["tags"]] == [("long hair", True), ("long sleeves", False)]
    assert ask("miku")["tags"][0]["category"] == "character"
    wrong = client.post("/studio/datasets/tags", files={"file": ("bad.csv", b"only,two\n")})
    assert wrong.status_code == 400 and "line 1" in wrong.json()["error"]["en"]
    assert client.get("/studio/datasets").json()["lists"] == ["danbooru.csv"]


def test_the_check_counts_draws_and_finds(app: App, client: TestClient, pictures: list[int]) -> None:
    found = client.get("/studio/datasets/set/ask/health").json()
    assert (found["pictures"], found["unmeasured"]) == (3, 3)
    assert found["charts"]["sides"] == [{"title": "0 – 255", "n": 3, "filter": "res:>=0 res:<256"}]
    assert {finding["code"] for finding in found["findings"]} >= {"few", "small", "no words", "no trigger word"}
    stripes = Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 20)
    for name, picture in (("large", stripes.resize((128, 96))), ("small", stripes), ("mirrored", mirror(stripes))):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        client.post("/studio/datasets/set/upload", files={"file": (f"{name}.png", buffer.getvalue())})
    with Library(app.workspace).open("set") as dataset:
        measure(dataset)
    copies = client.get("/studio/datasets/set/ask/copies").json()
    assert copies["total"] == 1
    assert [row["name"] for row in copies["groups"][0]] == ["large.png", "mirrored.png", "small.png"]
    assert copies["groups"][0][0]["best"] == ["pixels", "bytes"]
    assert client.get("/studio/datasets/set/ask/nothing").status_code == 400


def test_of_near_copies_one_is_better_or_all_are_alternates(app: App, client: TestClient, pictures: list[int]) -> None:
    stripes = Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 20)
    for name, size in (("large", (128, 96)), ("middle", (96, 72)), ("small", (64, 48))):
        buffer = io.BytesIO()
        stripes.resize(size).save(buffer, "PNG")
        client.post("/studio/datasets/set/upload", files={"file": (f"{name}.png", buffer.getvalue())})
    with Library(app.workspace).open("set") as dataset:
        measure(dataset)
    rows = lambda words: [row[2] for row in shown(client, words)["pictures"]]  # noqa: E731
    (group,) = client.get("/studio/datasets/set/ask/copies").json()["groups"]
    large, middle, small = (row["id"] for row in group)
    edit(client, "alternates", pictures=[large, small])
    assert rows("dup:yes") == ["large.png", "middle.png", "small.png"]  # both are copies of the third
    edit(client, "better", keep=[middle], others=[middle, small])
    assert rows("dup:yes") == ["large.png", "middle.png"]
    edit(client, "undo")
    edit(client, "alternates", pictures=[large, middle, small])
    assert (rows("dup:yes"), rows("dup:alternate")) == ([], ["large.png", "middle.png", "small.png"])
    assert client.get("/studio/datasets/set/ask/copies").json() == {"total": 0, "groups": []}
    assert edit(client, "undo")["event"] == "≠ large.png (3)"
    assert len(rows("dup:yes")) == 3
    assert client.post("/studio/datasets/set/better", json={"keep": [], "others": [1]}).status_code == 400
    for few in ([], [large]):
        assert client.post("/studio/datasets/set/alternates", json={"pictures": few}).status_code == 400
    assert client.post("/studio/datasets/set/better", json={"keep": [999], "others": [1]}).status_code == 404


def test_captions_go_out_and_come_in_as_one_file(client: TestClient, pictures: list[int]) -> None:
    edit(client, "decide", pictures=pictures[:1], tag="cat", state=1)
    made = client.get("/studio/datasets/set/file", params={"format": "diffusers csv"})
    assert made.text == "file_name,text\nblue.png,cat\ngreen.png,\nred.png,\n"
    assert "metadata.csv" in made.headers["content-disposition"]
    assert client.get("/studio/datasets/set/file", params={"format": "word"}).status_code == 400
    lines = b'{"file_name": "red.png", "text": "a rose"}\n{"file_name": "no.png", "text": ""}'
    sent = {"file": ("captions.jsonl", lines)}
    report = client.post("/studio/datasets/set/captions", files=sent, data={"read_as": "caption"}).json()
    assert report["done"] == 1 and "no.png" in report["problems"][0]["en"]
    assert client.get(f"/studio/datasets/set/about/{pictures[2]}").json()["text"] == "a rose"
    wrong = client.post("/studio/datasets/set/captions", files={"file": ("x.csv", b"name,words\na,b\n")})
    assert wrong.status_code == 400 and "it needs the columns" in wrong.json()["error"]["en"]


def test_a_caption_file_is_taken_for_the_picture_of_its_name(client: TestClient, pictures: list[int]) -> None:
    client.post("/studio/datasets/set/upload", files={"file": ("RED.txt", "rose, 红".encode())}).raise_for_status()
    assert edit(client, "import", read_as="tags")["done"] == 1
    assert captions(client, pictures)[2] == "rose, 红"
    answer = client.post("/studio/datasets/set/upload", files={"file": ("nobody.txt", b"x")})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "NoPictureOf"


def test_a_zip_is_sent_whole_and_waits_for_its_job(app: App, client: TestClient, pictures: list[int]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("more/white.png", png("white"))
    sent = client.post("/studio/datasets/set/archive", params={"name": "some.zip"}, content=buffer.getvalue())
    assert sent.status_code == 202
    job = app.jobs.get(sent.json()["job"])
    assert (job.kind, job.title, job.settings["dataset"]) == ("unpack", "some.zip", "set")
    path = uploads(app.workspace) / job.settings["archive"]
    assert path.read_bytes() == buffer.getvalue()


def test_a_zip_over_the_limit_is_refused_and_leaves_nothing(
    app: App, client: TestClient, pictures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.live.dataset_files.limited", lambda request, _: limited(request, 1))
    answer = client.post("/studio/datasets/set/archive", content=bytes(3 << 20))
    assert answer.status_code == 413 and "studio.toml" in answer.json()["error"]["en"]

    def blocks():  # whatever Content-Length says
        for _ in range(5):
            yield bytes(1 << 19)

    assert client.post("/studio/datasets/set/archive", content=blocks()).status_code == 413
    assert list(uploads(app.workspace).glob("*")) == []


def test_sizes_and_looks_use_the_settings_of_the_train_tab(app: App, client: TestClient, pictures: list[int]) -> None:
    client.post("/studio/datasets/set/upload", files={"file": ("wide.png", png("white", (200, 50)))})
    app.drafts.put("train", {"resolution": 64, "bucket_step": 16, "model": "", "sample_prompts": "one\ntwo"})
    found = client.post("/studio/datasets/set/train/sizes", json={}).json()
    assert {field["name"]: field["default"] for field in found["fields"]}["resolution"] == 64
    assert [(b["width"], b["height"], b["n"], b["enlarged"]) for b in found["buckets"]] == [
        (64, 64, 3, 3),
        (128, 32, 1, 0),
    ]
    assert found["cut"] == []
    square = client.post("/studio/datasets/set/train/sizes", json={"changes": {"buckets": False}}).json()
    (cut,) = square["cut"]
    assert (cut["name"], cut["box"], cut["lost"]) == ("wide.png", [0.375, 0.0, 0.625, 1.0], 0.75)

    queued = client.post("/studio/datasets/set/train/look", json={"changes": {"flip": True}, "count": 3, "start": 2})
    job = app.jobs.get(queued.json()["job"])
    assert (job.kind, job.settings["dataset"], job.settings["count"], job.settings["start"]) == ("look", "set", 3, 2)
    assert (job.settings["train"]["flip"], job.settings["train"]["sample_prompts"]) == (True, ["one", "two"])
    wrong = client.post("/studio/datasets/set/train/look", json={"changes": {"flp": True}})
    assert wrong.status_code == 400 and "flip" in wrong.json()["error"]["en"]


def test_a_folder_of_many_is_taken_in_by_a_job_and_few_at_once(
    app: App, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png("red", (16 + i, 16)))
    monkeypatch.setattr("studio.live.dataset_opening.AT_ONCE", 3)
    assert client.post("/studio/datasets", json={"name": "set", "folder": str(tmp_path)}).status_code == 201
    assert shown(client)["total"] == 0
    (job,) = app.jobs.list(kinds=["scan"])
    assert (job.settings, job.title) == ({"dataset": "set"}, "set")
    assert edit(client, "scan") == {"job": job.id}  # the same one: it waits for its turn
    monkeypatch.setattr("studio.live.dataset_opening.AT_ONCE", 4)
    assert edit(client, "scan") == {"added": 4, "gone": 0, "masks": 0, "problems": 0}
    assert shown(client)["total"] == 4


def test_the_page_gets_numbers_of_all_pictures_and_rows_of_the_first(client: TestClient, pictures: list[int]) -> None:
    answer = shown(client)
    assert (answer["ids"], len(answer["pictures"])) == ([1, 3], 3)
    edit(client, "decide", pictures=[1, 3], tag="cat", state=1)
    assert shown(client, "cat")["ids"] == [1, 1, 3, 1]
    assert shown(client, "name:nothing")["ids"] == []


def test_pictures_that_are_gone_are_told_and_a_folder_that_is_gone_forgets_none(
    app: App, client: TestClient, pictures: list[int]
) -> None:
    folder = app.workspace.datasets / "set"
    (folder / "blue.png").unlink()
    for what in ("picture", "thumb"):
        assert client.get(f"/studio/datasets/set/{what}/{pictures[0]}").json()["error"]["code"] == "PictureGone"
    for address in ("about/9", "thumb/9", "picture/9", "mask/9"):
        assert client.get(f"/studio/datasets/set/{address}{'9' * 30}").status_code == 404
    folder.rename(folder.with_name("away"))
    for action in ("scan", "export", "write_masks"):
        assert client.post(f"/studio/datasets/set/{action}", json={}).json()["error"]["code"] == "NotFound"
    assert not folder.exists()
    folder.with_name("away").rename(folder)
    assert edit(client, "scan")["gone"] == 1 and shown(client)["total"] == 2


def test_files_that_can_not_be_used_are_counted_and_the_first_shown(app: App, client: TestClient) -> None:
    folder = app.workspace.datasets / "set"
    folder.mkdir(parents=True)
    for i in range(130):
        (folder / f"{i:03}.png").write_bytes(b"")
    answer = shown(client)
    assert (answer["total"], answer["refused"], len(answer["problems"])) == (0, 130, 100)
