"""A form for a graph that has none: the prompts, the size, the seed and the model, as the templates show them.

For prompts of programs and of pictures made here, which say nothing of a form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.graph.catalogue import Catalogue
from engine.graph.form import TITLE_ZH, with_chosen
from engine.graph.widgets import Widget, Widgets
from engine.workspace import Workspace

USUAL = ("text", "image", "width", "height", "seed", "noise_seed", "steps", "ckpt_name", "unet_name", "lora_name")
MOST = 12
_TITLES = {"positive": ("Prompt", "提示词"), "negative": ("Negative prompt", "反向提示词")}


def with_usual_form(workflow: Mapping[str, Any], catalogue: Catalogue, workspace: Workspace) -> dict[str, Any]:
    """The workflow with its usual inputs chosen, and prompts called what they are used as. A graph with nothing usual
    in it stays as it is."""
    known = Widgets(workflow, catalogue, workspace)
    nodes = _titled(workflow)
    found = [(node, widget.name) for node in nodes for widget in known.of(node) if _is_usual(node, widget)]
    found.sort(key=lambda pair: (USUAL.index(pair[1]), pair[0].get("title") == _TITLES["negative"][0]))
    titled = {**workflow, "nodes": nodes}
    return with_chosen(titled, [(str(node["id"]), name) for node, name in found[:MOST]]) if found else titled


def _is_usual(node: Mapping[str, Any], widget: Widget) -> bool:
    if widget.linked or widget.name not in USUAL:
        return False
    kind = str(node.get("type", ""))
    if widget.name in ("width", "height"):
        return kind.startswith("Empty")
    return widget.name != "image" or kind.startswith("LoadImage")


def _titled(workflow: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The nodes; texts that go straight into `positive` or `negative` of one kind are titled so."""
    used: dict[Any, set[str]] = {}
    names = {node["id"]: [one.get("name") for one in node.get("inputs", [])] for node in workflow["nodes"]}
    for _, origin, _, target, place, _ in workflow["links"]:
        used.setdefault(origin, set()).add(names[target][place])
    found = []
    for node in workflow["nodes"]:
        roles = used.get(node["id"], set()) & set(_TITLES)
        if node["type"] == "CLIPTextEncode" and len(roles) == 1 and "title" not in node:
            title, title_zh = _TITLES[roles.pop()]
            node = {**node, "title": title, "properties": {**node["properties"], TITLE_ZH: title_zh}}
        found.append(node)
    return found
