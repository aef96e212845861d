"""A workflow as a simple form: the inputs that were chosen to be shown, their values, and setting them.

Which inputs those are stands in the workflow itself, at `extra.linearData.inputs`, where the official editor's app mode
keeps them: [[node id, widget name], ...], or ["graph id:node id:widget name", widget name] as it writes them now. So a
form made here opens there, and the other way round.
"""

from __future__ import annotations

import copy
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from engine.errors import GraphError, InputError
from engine.graph.catalogue import Catalogue
from engine.graph.widgets import Widget, Widgets, advance
from engine.workspace import Workspace

SHOWN = "linearData"
TITLE_ZH = "easel_title_zh"  # a node's own title in Chinese, among its properties
MOST_FIELDS = 200
_WIDGET_ID = re.compile(r"[^:]+:([^:]+):([^:]+)")
LONGEST_TEXT = 1_000_000


class NoSuchInput(InputError):
    en = "The workflow has no input '{name}' at node {node} that could be set here."
    zh = "该工作流的节点 {node} 没有可在此设置的输入“{name}”。"


class BadValue(InputError):
    en = "'{value}' can't be the value of '{name}': {reason}."
    zh = "“{value}”不能作为“{name}”的值：{reason_zh}。"


class NotAWorkflow(GraphError):
    en = "This is no workflow: {reason}."
    zh = "这不是工作流：{reason_zh}。"


def check_workflow(document: Any) -> dict[str, Any]:
    """The document, when it has the shape of a workflow. Raises NotAWorkflow."""
    if not isinstance(document, dict):
        raise NotAWorkflow(reason="it is not an object", reason_zh="它不是对象")
    nodes = document.get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) and "id" in node for node in nodes):
        raise NotAWorkflow(reason="it has no list of nodes", reason_zh="其中没有节点列表")
    return document


def fields(workflow: Mapping[str, Any], catalogue: Catalogue, workspace: Workspace) -> list[dict[str, Any]]:
    """The chosen inputs as JSON for a form, in their order; those that are not there any more are left out."""
    known = Widgets(workflow, catalogue, workspace)
    nodes = {str(node["id"]): node for node in workflow["nodes"]}
    found = []
    for node_id, name in chosen(workflow):
        node = nodes.get(node_id)
        widget = next((w for w in known.of(node) if w.name == name and not w.linked), None) if node else None
        if node and widget:
            found.append(_field(node, widget, catalogue))
    return found


def described(workflow: Mapping[str, Any], catalogue: Catalogue, workspace: Workspace) -> list[dict[str, Any]]:
    """Every node with the inputs that could be shown: [{"id", "title", "title_zh", "inputs": [[name, value], ...]}]."""
    known = Widgets(workflow, catalogue, workspace)
    found = []
    for node in workflow["nodes"]:
        inputs = [[widget.name, widget.value(node)] for widget in known.of(node) if not widget.linked]
        found.append({"id": str(node["id"]), **_titles(node, catalogue), "inputs": inputs})
    return found


def chosen(workflow: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(node id, widget name) as the workflow says."""
    return [place for place, _ in _rows(workflow)]


def _rows(workflow: Mapping[str, Any]) -> list[tuple[tuple[str, str], list[Any]]]:
    """((node id, widget name), as it is written) of the chosen inputs."""
    extra = workflow.get("extra")
    data = extra.get(SHOWN) if isinstance(extra, Mapping) else None
    rows = data.get("inputs") if isinstance(data, Mapping) else None
    rows = rows if isinstance(rows, list) else []
    return [(_place(row), row) for row in rows[:MOST_FIELDS] if isinstance(row, list) and len(row) >= 2]


def _place(row: Sequence[Any]) -> tuple[str, str]:
    whole = _WIDGET_ID.fullmatch(row[0]) if isinstance(row[0], str) else None
    return (unquote(whole[1]), unquote(whole[2])) if whole else (str(row[0]), str(row[1]))


def with_chosen(workflow: Mapping[str, Any], inputs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The workflow with other inputs chosen. Node ids keep the type that they have in the workflow."""
    ids = {str(node["id"]): node["id"] for node in workflow["nodes"]}
    for node_id, name in inputs:
        if node_id not in ids:
            raise NoSuchInput(node=node_id[:40], name=name[:80])
    extra = workflow.get("extra")
    extra = dict(extra) if isinstance(extra, Mapping) else {}
    data = extra.get(SHOWN)
    kept = dict(data) if isinstance(data, Mapping) else {"outputs": []}
    before = dict(_rows(workflow))  # a row may say more, about how the editor shows it
    extra[SHOWN] = {**kept, "inputs": [before.get((node_id, name), [ids[node_id], name]) for node_id, name in inputs]}
    return {**workflow, "extra": extra}


def with_values(
    workflow: Mapping[str, Any], values: Mapping[str, Any], catalogue: Catalogue, workspace: Workspace
) -> dict[str, Any]:
    """The workflow with values set: {"3.seed": 42}. Raises NoSuchInput, BadValue."""
    changed = copy.deepcopy(dict(workflow))
    known = Widgets(changed, catalogue, workspace)
    nodes = {str(node["id"]): node for node in changed["nodes"]}
    for key, value in values.items():
        node_id, _, name = key.partition(".")
        node = nodes.get(node_id)
        widget = next((w for w in known.of(node) if w.name == name and not w.linked), None) if node else None
        if node is None or widget is None:
            raise NoSuchInput(node=node_id[:40], name=name[:80])
        widget.set(node, taken(widget, value))
    return changed


def after_run(
    workflow: Mapping[str, Any], catalogue: Catalogue, workspace: Workspace, rng: random.Random
) -> dict[str, Any]:
    """The workflow as the editor leaves it after a run: seeds that are to change have changed."""
    changed = copy.deepcopy(dict(workflow))
    known = Widgets(changed, catalogue, workspace)
    for node in changed["nodes"]:
        advance(node, known.of(node), rng)
    return changed


def taken(widget: Widget, value: Any) -> Any:
    """What a form sent as the value that the widget holds. Ranges and choices are left to validation, which knows
    every reason. Raises BadValue for what has the wrong type."""
    try:
        match widget.kind:
            case "INT":
                return int(str(value).strip()) if not isinstance(value, bool) else int(value)
            case "FLOAT":
                number = float(str(value).strip())
                if not math.isfinite(number):
                    raise ValueError("not finite")
                return number
            case "BOOLEAN":
                return value if isinstance(value, bool) else str(value).lower() in ("true", "1", "on")
            case "COMBO":
                return next((choice for choice in widget.choices if str(choice) == str(value)), value)
    except ValueError as error:
        words = {"reason": "it is no number", "reason_zh": "不是数字"}
        raise BadValue(value=str(value)[:80], name=widget.name, **words) from error
    text = str(value)
    if len(text) > LONGEST_TEXT:
        raise BadValue(value=text[:40] + "...", name=widget.name, reason="it is too long", reason_zh="过长")
    return text


def _field(node: Mapping[str, Any], widget: Widget, catalogue: Catalogue) -> dict[str, Any]:
    options = widget.options
    shown = {key: options[key] for key in ("min", "max", "step", "multiline", "tooltip") if key in options}
    kind = "picture" if options.get("image_upload") else widget.kind.lower()
    value = widget.value(node)
    if widget.kind == "INT" and isinstance(value, int):
        value = str(value)  # a seed is larger than a browser's numbers are exact
        shown |= {key: str(shown[key]) for key in ("min", "max") if key in shown}
    return {
        "key": f"{node['id']}.{widget.name}",
        "name": widget.name,
        "kind": kind,
        "value": value,
        "choices": list(widget.choices),
        **_titles(node, catalogue),
        **shown,
    }


def _titles(node: Mapping[str, Any], catalogue: Catalogue) -> dict[str, str]:
    kind = str(node.get("type", ""))
    given = node.get("title")
    if kind not in catalogue:
        return {"title": str(given or kind), "title_zh": str(given or kind)}
    entry = catalogue[kind]
    usual = str(entry.info.get("display_name") or kind)
    title = str(given or usual)
    translated = (node.get("properties") or {}).get(TITLE_ZH)
    if translated:
        return {"title": title, "title_zh": str(translated)}
    return {"title": title, "title_zh": entry.title_zh or title if title in (kind, usual) else title}
