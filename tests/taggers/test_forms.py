from __future__ import annotations

import json
import subprocess
import sys

import pytest

from engine.errors import InvalidSetting, UnknownSetting
from engine.workspace import Workspace
from taggers.catalogue import CAPTIONERS
from taggers.endpoint import EndpointTool
from taggers.florence import FlorenceTool
from taggers.forms import captioner_rows, fields_of, preview, tool_forms, tool_of
from taggers.settings import TagSettings
from tests.taggers.tiny import write_florence


def test_every_kind_has_a_form_with_words_in_both_languages_and_what_is_on_disk(workspace: Workspace) -> None:
    write_florence(workspace.models / "captioners" / "people" / "florence")
    (workspace.models / "captioners" / "other").mkdir()
    (workspace.models / "captioners" / "other" / "config.json").write_text('{"model_type": "blip"}')
    forms = {form["kind"]: form for form in tool_forms(workspace)}
    assert list(forms) == ["onnx", *(kind.name for kind in CAPTIONERS), "unknown"]
    assert [model["name"] for model in forms["florence2"]["models"]] == ["people/florence"]
    assert forms["unknown"]["models"][0]["error"]["code"] == "UnknownCaptioner"
    tagger = next(model for model in forms["onnx"]["models"] if model["name"] == "wd-test")
    assert (tagger["title"], tagger["thresholds"]["general"], tagger["presets"]) == ("WD tagger", 0.35, {})
    json.dumps(list(forms.values()))
    for kind in CAPTIONERS:
        for field in fields_of(kind):
            assert field["title"]["en"] and field["help"]["en"], field
            assert any("\u4e00" <= letter <= "\u9fff" for letter in field["help"]["zh"]), field
            assert "min" not in field or field["min"] <= field["default"] <= field.get("max", field["default"])


def test_captioners_are_rows_behind_the_taggers_and_their_fields_make_a_run(workspace: Workspace) -> None:
    write_florence(workspace.models / "captioners" / "florence")
    rows = {row["name"]: row for row in captioner_rows(workspace)}
    assert list(rows) == ["florence", "endpoint"]
    row = rows["florence"]
    values = {field["name"]: field["default"] for field in row["fields"]}
    settings = TagSettings.model_validate({"dataset": "set", "tools": [{**row["tool"], **values}]})
    assert settings.all_tools()[0] == FlorenceTool(model="florence")
    values = {field["name"]: field["default"] for field in rows["endpoint"]["fields"]}
    assert tool_of({**rows["endpoint"]["tool"], **values}) == EndpointTool()


def test_joycaptions_choices_are_the_whole_matrix() -> None:
    kind = next(kind for kind in CAPTIONERS if kind.name == "joycaption")
    fields = {field["name"]: field for field in fields_of(kind)}
    assert [len(fields[name]["options"]) for name in ("type", "length", "options")] == [12, 31, 27]
    assert [fields[name]["kind"] for name in ("type", "length", "options", "temperature", "use_tags", "prompt")] == [
        *("choice", "choice", "choices", "number", "switch", "area"),
    ]


def test_a_prompt_is_shown_while_choices_are_made_and_may_be_edited() -> None:
    made = preview({"kind": "joycaption", "type": "Product Listing", "length": "short", "use_tags": True})
    assert made["instruction"] == "Write a short caption for this image as though it were a product listing."
    assert made["prompt"].startswith(made["instruction"]) and made["prompt"].endswith("{tags}.")
    assert preview({"kind": "florence2", "task": "<OD>"})["prompt"].startswith("Locate the objects")
    assert preview({"kind": "qwen-vl", "prompt": "Only {tags}", "use_tags": True})["prompt"] == "Only {tags}"
    with pytest.raises(UnknownSetting, match="length"):
        preview({"kind": "joycaption", "lenght": "short"})
    with pytest.raises(InvalidSetting, match="very short"):
        preview({"kind": "joycaption", "length": "endless"})
    with pytest.raises(InvalidSetting, match="known are florence2"):
        preview({"kind": "gpt"})


def test_forms_need_neither_torch_nor_transformers() -> None:
    code = "import sys, taggers.forms\nsys.exit(bool({'torch', 'transformers', 'onnxruntime'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
