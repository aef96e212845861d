"""What the Workflow tab opens, from wherever it comes, and what it makes of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from engine.errors import NotFound, OutsideWorkspace, PictureError
from engine.graph.catalogue import Catalogue, Entry
from engine.graph.form import NotAWorkflow
from engine.graph.layout import to_workflow
from engine.graph.metadata import Metadata, save_picture
from engine.graph.validation import validate
from engine.graph.workflow import to_prompt
from engine.workflows import PictureSettings, text_to_image
from studio.app import App
from tabs import workbench
from tabs.workbench import BadName, NothingInside

TOLD = json.loads((Path(__file__).parents[1] / "graph" / "data" / "object_info.json").read_text(encoding="utf-8"))
PROMPT = text_to_image(PictureSettings("easel-demo.safetensors", "a red star", seed=2**60, steps=4))


@pytest.fixture(autouse=True)
def nodes(app: App) -> Catalogue:
    """The nodes of the reference system: so no worker is needed."""
    catalogue = Catalogue({name: Entry({**info, "input_order": {}}) for name, info in TOLD.items()})
    catalogue.save(app.workspace.cache)
    return catalogue


def picture(metadata: Metadata, kind: str) -> bytes:
    out = io.BytesIO()
    save_picture(Image.new("RGB", (8, 8), "red"), out, kind, metadata)
    return out.getvalue()


def seed_of(found: workbench.Opened, app: App) -> int:
    prompt = to_prompt(found.workflow, app.catalogue)
    return next(node["inputs"]["seed"] for node in prompt.values() if node["class_type"] == "KSampler")


def test_at_first_the_template_of_the_bundled_model_is_open_and_it_is_not_pushed_into_the_editor(app: App) -> None:
    found = workbench.opened(app)
    assert found.name == "demo_text_to_image" and found.serial == 0
    shown = workbench.describe(app, found)
    assert [field["name"] for field in shown["fields"]][:3] == ["text", "text", "width"]
    assert shown["fields"][0]["title_zh"] == "提示词"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("what", ["workflow", "prompt", "parameters"])
def test_a_picture_of_any_kind_opens_by_what_it_carries(app: App, kind: str, what: str) -> None:
    text = f"a red star\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: {2**60}, Size: 512x512, Model: easel-demo"
    carried = {
        "workflow": Metadata(workflow=to_workflow(PROMPT, app.catalogue), prompt={"1": {"class_type": "Other"}}),
        "prompt": Metadata(prompt=PROMPT, parameters="something else"),
        "parameters": Metadata(parameters=text),
    }[what]
    found = workbench.open_file(app, io.BytesIO(picture(carried, kind)), f"a picture.{kind.lower()}")
    assert seed_of(found, app) == 2**60
    assert (found.name, found.serial) == ("a picture", 1)
    assert workbench.opened(app) == found


@pytest.mark.parametrize("document", [PROMPT, {"prompt": PROMPT, "client_id": "x"}], ids=["prompt", "request"])
def test_json_opens_as_workflow_prompt_or_request(app: App, document: Any) -> None:
    text = "\ufeff  " + json.dumps(document)
    assert seed_of(workbench.open_file(app, io.BytesIO(text.encode()), "x.json"), app) == 2**60
    made = to_workflow(PROMPT, app.catalogue)
    assert seed_of(workbench.open_document(app, made), app) == 2**60


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", PictureError),
        (b"{", NotAWorkflow),
        (b"[" * 100_000, NotAWorkflow),
        (b"[1, 2]", NotAWorkflow),
        (b'{"nodes": {}}', NotAWorkflow),
        (b'{"nodes": [1]}', NotAWorkflow),
        (b"\x89PNG\r\n\x1a\n", PictureError),
        (b"GIF89a", PictureError),
        (picture(Metadata(), "PNG"), NothingInside),
    ],
)
def test_what_holds_no_workflow_is_refused_and_what_is_open_stays(
    app: App, data: bytes, error: type[Exception]
) -> None:
    before = workbench.open_document(app, PROMPT, "mine")
    with pytest.raises(error):
        workbench.open_file(app, io.BytesIO(data), "x.bin")
    assert workbench.opened(app) == before


A1111 = "a yellow moon\nNegative prompt: stars\nSteps: 7, Sampler: Euler a, Seed: 31337, Size: 128x96, Model: demo"


def test_a_file_of_a1111s_text_opens_as_its_graph_with_a_form(app: App) -> None:
    found = workbench.open_file(app, io.BytesIO(b"\xef\xbb\xbf" + A1111.encode()), "moon.txt")
    assert found.name == "moon" and seed_of(found, app) == 31337
    shown = [(field["name"], field["title"], str(field["value"])) for field in workbench.describe(app, found)["fields"]]
    assert shown[:2] == [("text", "Prompt", "a yellow moon"), ("text", "Negative prompt", "stars")]
    assert [name for name, _, _ in shown[2:]] == ["width", "height", "seed", "steps", "ckpt_name"]
    with pytest.raises(PictureError, match=r"^'notes\.txt' is no picture") as caught:
        workbench.open_file(app, io.BytesIO(b"a text that says nothing"), "notes.txt")
    assert "BytesIO" not in str(caught.value)


def test_what_a_program_chose_to_call_a_node_stays_and_unusual_graphs_have_no_form(app: App) -> None:
    named = json.loads(json.dumps(PROMPT))
    text = next(key for key, node in named.items() if node["class_type"] == "CLIPTextEncode")
    named[text]["_meta"] = {"title": "My words"}
    assert "My words" in [field["title"] for field in _fields(app, named)]
    assert _fields(app, {"1": {"class_type": "NoSuchNode", "inputs": {"seed": 1, "image": ["9", 0]}}}) == []
    many = {str(n): {"class_type": "CLIPTextEncode", "inputs": {"text": "x"}} for n in range(500)}
    assert len(_fields(app, many)) == 12


def _fields(app: App, document: Any) -> list[dict[str, Any]]:
    return workbench.describe(app, workbench.open_document(app, document))["fields"]


ODD: dict[str, Any] = {
    "values that are no list": {"id": 1, "type": "KSampler", "widgets_values": 3},
    "inputs that are no list": {"id": 1, "type": "KSampler", "inputs": 3},
    "inputs of nothing": {"id": 1, "type": "KSampler", "inputs": [None, {}]},
    "properties that are none": {"id": 1, "type": "KSampler", "properties": None},
    "an id that is a list": {"id": [1], "type": ["KSampler"]},
}


@pytest.mark.parametrize("node", ODD.values(), ids=ODD)
def test_a_workflow_that_is_odd_inside_is_shown_or_refused_with_words(app: App, node: Any) -> None:
    chosen = {"linearData": {"inputs": [[1, "seed"]]}}
    found = workbench.open_document(app, {"nodes": [node], "links": [], "extra": chosen})
    try:
        workbench.describe(app, found)
    except NotAWorkflow as error:
        assert "不是工作流" in error.text("zh")


def test_saved_workflows_keep_their_form_and_lie_where_the_editor_looks(app: App) -> None:
    workbench.open_document(app, PROMPT)
    workbench.choose_inputs(app, [("5", "seed"), ("2", "text")])
    workbench.set_values(app, {"5.seed": "7", "2.text": "a cat"})
    assert workbench.save(app, "pictures/我的 workflow").name == "pictures/我的 workflow"
    assert (app.workspace.root / "user" / "workflows" / "pictures" / "我的 workflow.json").is_file()
    workbench.open_template(app, "flux_dev")
    found = workbench.open_saved(app, workbench.saved(app)[0])
    shown = workbench.describe(app, found)
    assert [(field["key"], field["value"]) for field in shown["fields"]] == [("5.seed", "7"), ("2.text", "a cat")]
    with pytest.raises(NotFound):
        workbench.open_saved(app, "none")


@pytest.mark.parametrize("name", ["", "  ", "../x", "/etc/x", "a/../../b", "x" * 101, ".hidden", "a\0b", "a:b", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(app: App, name: str) -> None:
    with pytest.raises((BadName, OutsideWorkspace)):
        workbench.save(app, name)
    with pytest.raises((BadName, OutsideWorkspace, NotFound)):
        workbench.open_saved(app, name)
    with pytest.raises((NotFound, OutsideWorkspace)):
        workbench.open_template(app, name)


TEMPLATES = [row["name"] for row in workbench.templates()]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_a_prompt_that_the_reference_system_would_take_but_for_missing_files(
    app: App, nodes: Catalogue, name: str
) -> None:
    found = workbench.open_template(app, name)
    prompt = to_prompt(found.workflow, nodes)
    judged = validate(prompt, nodes, app.workspace)
    errors = [error for node in judged.node_errors.values() for error in node["errors"]]
    assert {error["type"] for error in errors} <= {"value_not_in_list"}, errors
    shown = workbench.describe(app, found)
    assert len(shown["fields"]) == len(found.workflow["extra"]["linearData"]["inputs"]) >= 2
    ids = {node["id"] for node in found.workflow["nodes"]}
    assert set(found.workflow["extra"]["linearData"]["outputs"]) <= ids


def test_templates_have_words_in_both_languages() -> None:
    rows = workbench.templates()
    assert len({row["title"] for row in rows}) == len(rows) >= 18
    for row in rows:
        assert all(row[key].strip() for key in ("title", "title_zh", "description", "description_zh", "family"))
        assert any("\u4e00" <= letter <= "\u9fff" for letter in row["description_zh"])


def test_the_routes_open_fill_in_choose_save_and_list(client: TestClient, app: App) -> None:
    assert client.get("/studio/workflow").json()["name"] == "demo_text_to_image"
    opened = client.post("/studio/workflow", json={"document": PROMPT, "name": "mine"}).json()
    assert (opened["name"], opened["serial"]) == ("mine", 1)
    assert [field["key"] for field in opened["fields"]][:2] == ["2.text", "3.text"]
    shown = client.post("/studio/workflow/inputs", json={"inputs": [["5", "steps"]]}).json()
    assert [field["key"] for field in shown["fields"]] == ["5.steps"]
    shown = client.post("/studio/workflow/values", json={"values": {"5.steps": "9"}}).json()
    assert shown["fields"][0]["value"] == "9" and shown["serial"] == 1
    edited = client.post("/studio/workflow", json={"edited": shown["workflow"]}).json()
    assert edited["serial"] == 1 and edited["name"] == "mine"
    assert client.post("/studio/workflow/save", json={"name": "kept"}).status_code == 200
    assert client.get("/studio/workflows").json()["saved"] == ["kept"]
    assert client.post("/studio/workflow", json={"template": "sdxl_text_to_image"}).json()["serial"] == 2
    assert client.post("/studio/workflow", json={"saved": "kept"}).json()["fields"][0]["value"] == "9"
    data = picture(Metadata(prompt=PROMPT), "PNG")
    assert client.post("/studio/workflow/file", files={"file": ("a.png", data)}).json()["name"] == "a"
    (app.workspace.output / "b.png").write_bytes(data)
    assert client.post("/studio/workflow", json={"picture": {"filename": "b.png"}}).json()["name"] == "b"
    text = "a fox\nSteps: 4, Sampler: Euler, Seed: 1"
    assert client.post("/studio/workflow", json={"parameters": text}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("workflow", {}, 400),
        ("workflow", {"document": 3}, 400),
        ("workflow", {"picture": {"filename": "../access.json"}}, 400),
        ("workflow", {"picture": {"filename": "none.png"}}, 404),
        ("workflow", {"template": "none"}, 404),
        ("workflow/values", {"values": []}, 400),
        ("workflow/values", {"values": {"99.seed": 1}}, 400),
        ("workflow/inputs", {"inputs": [["5"]]}, 400),
        ("workflow/inputs", {"inputs": [["99", "seed"]]}, 400),
        ("workflow/save", {"name": "../x"}, 400),
    ],
)
def test_a_wrong_request_is_refused_in_both_languages(
    client: TestClient, path: str, body: dict[str, Any], status: int
) -> None:
    answer = client.post(f"/studio/{path}", json=body)
    assert answer.status_code == status and answer.json()["error"]["zh"]
