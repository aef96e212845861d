"""Nodes that went under another name: a prompt of yesterday is rewritten before it is judged.

Only types that nobody has are replaced. The table is ComfyUI's format, as packs register it and GET /node_replacements
shows it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.graph.links import is_link


@dataclass(frozen=True)
class Replacement:
    """`input_mapping`: [{"new_id", "old_id"} or {"new_id", "set_value"}]; None keeps all inputs. `output_mapping`:
    [{"new_idx", "old_idx"}]; None keeps all outputs. `old_widget_ids` are for editors, which keep values by place."""

    new_node_id: str
    old_node_id: str
    old_widget_ids: tuple[str, ...] | None = None
    input_mapping: tuple[Mapping[str, Any], ...] | None = None
    output_mapping: tuple[Mapping[str, Any], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        def listed(rows: Sequence[Any] | None) -> list[Any] | None:
            return None if rows is None else list(rows)

        return {
            "new_node_id": self.new_node_id,
            "old_node_id": self.old_node_id,
            "old_widget_ids": listed(self.old_widget_ids),
            "input_mapping": listed(self.input_mapping),
            "output_mapping": listed(self.output_mapping),
        }

    @staticmethod
    def from_json(saved: Mapping[str, Any]) -> Replacement:
        fields: dict[str, Any] = {n: tuple(rows) if isinstance(rows, list) else rows for n, rows in saved.items()}
        return Replacement(**fields)


# Names that stood in workflows for years.
OWN = (Replacement("ConditioningAverage", "ConditioningAverage "),)


def listed(replacements: Sequence[Replacement]) -> dict[str, list[dict[str, Any]]]:
    """GET /node_replacements: by the old type."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in replacements:
        found.setdefault(one.old_node_id, []).append(one.to_json())
    return found


def replaced(prompt: Any, replacements: Sequence[Replacement], known: Container[str]) -> Any:
    """The prompt with known types in place of those that only have a replacement; the same object when there are none.
    What is no prompt is left for validation to refuse."""
    table = {one.old_node_id: one for one in reversed(replacements) if one.new_node_id in known}
    if not isinstance(prompt, dict):
        return prompt
    old = {
        node_id: table[node["class_type"]]
        for node_id, node in prompt.items()
        if isinstance(node, dict) and _replaceable(node, table, known)
    }
    if not old:
        return prompt
    moved = {
        node_id: {row["old_idx"]: row["new_idx"] for row in one.output_mapping}
        for node_id, one in old.items()
        if one.output_mapping is not None
    }
    return {
        node_id: _rewritten(node, old.get(node_id), moved) if isinstance(node, dict) else node
        for node_id, node in prompt.items()
    }


def _replaceable(node: Mapping[str, Any], table: Mapping[str, Replacement], known: Container[str]) -> bool:
    name = node.get("class_type")
    return isinstance(name, str) and name in table and name not in known


def _rewritten(
    node: dict[str, Any], replacement: Replacement | None, moved: Mapping[str, Mapping[int, int]]
) -> dict[str, Any]:
    inputs = node.get("inputs")
    if not isinstance(inputs, dict):
        return node if replacement is None else {**node, "class_type": replacement.new_node_id}
    if replacement is not None and replacement.input_mapping is not None:
        inputs = dict(_mapped(inputs, replacement.input_mapping))
    inputs = {name: _followed(value, moved) for name, value in inputs.items()}
    name = node.get("class_type") if replacement is None else replacement.new_node_id
    return {**node, "class_type": name, "inputs": inputs}


def _mapped(inputs: Mapping[str, Any], mapping: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    found = []
    for row in mapping:
        if "set_value" in row:
            found.append((row["new_id"], row["set_value"]))
        elif row.get("old_id") in inputs:
            found.append((row["new_id"], inputs[row["old_id"]]))
    return found


def _followed(value: Any, moved: Mapping[str, Mapping[int, int]]) -> Any:
    """A link to an output that has another place now."""
    if is_link(value) and value[0] in moved:
        return [value[0], moved[value[0]].get(value[1], value[1])]
    return value
