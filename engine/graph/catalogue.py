"""What nodes there are and what they take, as JSON in the shape of ComfyUI's /object_info.

The worker makes it from the registry and keeps it on disk under a hash of the code, so that a server without torch
answers for nodes that it can't import. Choices that change (model files) are kept by what they list and filled in when
asked for.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from engine.graph.node import Choices, In, InputFiles, Models
from engine.graph.registry import NodeType, Registry, WholeHook
from engine.workspace import Workspace, replacing

VERSION = 2  # of the file; part of its name
ANY_NAME = "any name at all"  # an input that no node declares
ENGINE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Entry:
    """One node type. `info` is its /object_info entry with empty lists where `choices` go, keyed by input name."""

    info: dict[str, Any]
    choices: Mapping[str, Choices] = field(default_factory=dict)
    custom: tuple[str, ...] | None = ()  # inputs its own validate looks at; None: all of them
    title_zh: str = ""
    internal: bool = False
    open_links: bool = False  # it takes links that it does not declare
    any_slot: bool = False  # it may be asked for more outputs than it declares

    def resolved(self, listing: Listing) -> dict[str, Any]:
        """The /object_info entry with the choices there are now."""
        if not self.choices:
            return self.info
        groups = {}
        for group, inputs in self.info["input"].items():
            groups[group] = {
                name: [listing(self.choices[name]), spec[1]] if name in self.choices else spec
                for name, spec in inputs.items()
            }
        return {**self.info, "input": groups}


class Listing:
    """What a workspace offers to choose from, each list made once. Make a new one per request."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._lists: dict[Choices, list[str]] = {}

    def __call__(self, choices: Choices) -> list[str]:
        if choices not in self._lists:
            self._lists[choices] = choices(self.workspace)
        return self._lists[choices]


class Catalogue:
    """Entries by class_type."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(entries)

    @staticmethod
    def of(registry: Registry | Iterable[NodeType]) -> Catalogue:
        return Catalogue({node_type.name: _entry(node_type) for node_type in registry})

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def object_info(self, workspace: Workspace) -> dict[str, Any]:
        """GET /object_info."""
        listing = Listing(workspace)
        return {name: entry.resolved(listing) for name, entry in self._entries.items() if not entry.internal}

    def object_info_of(self, name: str, workspace: Workspace) -> dict[str, Any]:
        """GET /object_info/{name}: one entry, or nothing."""
        entry = self._entries.get(name)
        return {name: entry.resolved(Listing(workspace))} if entry and not entry.internal else {}

    def i18n(self) -> dict[str, Any]:
        """GET /i18n: the Chinese titles, as the official editor wants them."""
        titles = {name: {"display_name": e.title_zh} for name, e in self._entries.items() if e.title_zh}
        return {"zh": {"nodeDefs": titles}}

    def save(self, folder: Path) -> Path:
        """Write it under the hash of the code as it is now."""
        path = folder / _file_name()
        with replacing(path, "w") as file:
            json.dump(self.to_json(), file)
        for old in folder.glob("catalogue-*.json"):
            if old != path:
                old.unlink(missing_ok=True)
        return path

    @staticmethod
    def load(folder: Path) -> Catalogue | None:
        """The catalogue that a worker with this very code has saved, if there is one."""
        path = folder / _file_name()
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return Catalogue.from_json(saved)

    def to_json(self) -> dict[str, Any]:
        return {name: _entry_to_json(entry) for name, entry in self._entries.items()}

    @staticmethod
    def from_json(saved: Mapping[str, Any]) -> Catalogue:
        return Catalogue({name: _entry_from_json(entry) for name, entry in saved.items()})

    def with_more(self, other: Catalogue) -> Catalogue:
        """Both; of two entries of a name, our own."""
        return Catalogue({**other._entries, **self._entries})


def code_hash() -> str:
    """Changes when a file changes that nodes are declared in or take their choices from."""
    digest = hashlib.blake2b(digest_size=8)
    for part in ("graph", "nodes", "sampling", "families"):
        for path in sorted((ENGINE / part).rglob("*.py")):
            digest.update(f"{path.relative_to(ENGINE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _file_name() -> str:
    return f"catalogue-{VERSION}-{code_hash()}.json"


def _entry(node_type: NodeType) -> Entry:
    declared = node_type.declaration
    groups: dict[str, dict[str, Any]] = {"required": {}}
    choices: dict[str, Choices] = {}
    for item in node_type.inputs.values():
        group = groups.setdefault("optional" if item.optional else "required", {})
        kind: Any = item.declared.type
        if not isinstance(kind, str | Sequence):
            choices[item.name] = kind
            kind = []
        group[item.name] = [kind if isinstance(kind, str) else list(kind), _options(item.declared)]
    if declared.hidden:
        groups["hidden"] = dict(node_type.hidden_names or {kind.lower(): kind for kind in declared.hidden})
    info: dict[str, Any] = {
        "input": groups,
        "input_order": {group: list(inputs) for group, inputs in groups.items()},
        "output": [out.type for out in declared.outputs],
        "output_is_list": [out.is_list for out in declared.outputs],
        "output_name": [out.name or out.type for out in declared.outputs],
        "name": declared.name,
        "display_name": declared.title,
        "description": declared.description,
        "python_module": node_type.module.removeprefix("engine."),
        "category": declared.category,
        "output_node": declared.output_node,
    }
    if any(out.tooltip for out in declared.outputs):
        info["output_tooltips"] = [out.tooltip for out in declared.outputs]
    if declared.has_intermediate_output:
        info["has_intermediate_output"] = True
    if declared.deprecated:
        info["deprecated"] = True
    if declared.experimental:
        info["experimental"] = True
    if declared.search_aliases:
        info["search_aliases"] = list(declared.search_aliases)
    return Entry(
        info,
        choices,
        _looked_at(node_type),
        declared.title_zh,
        declared.internal,
        open_links=node_type.undeclared(ANY_NAME, True) is not None,
        any_slot=node_type.any_slot,
    )


def _looked_at(node_type: NodeType) -> tuple[str, ...] | None:
    """Names of the inputs that the node's own `validate` takes; None when it takes any."""
    hook = node_type.declaration.validate
    if hook is None:
        return ()
    if isinstance(hook, WholeHook):
        return hook.names
    parameters = inspect.signature(hook).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return tuple(name for name in parameters if name != "ctx")


def _options(declared: In) -> dict[str, Any]:
    names = {
        "default": declared.default,
        "min": declared.min,
        "max": declared.max,
        "step": declared.step,
        "round": declared.round,
        "multiline": declared.multiline,
        "dynamicPrompts": declared.dynamic_prompts,
        "control_after_generate": declared.control_after_generate,
        "forceInput": declared.force_input,
        "lazy": declared.lazy,
        "multiselect": declared.multiselect,
        "image_upload": declared.image_upload,
        "advanced": declared.advanced,
        "tooltip": declared.tooltip or None,
        **declared.extra,
    }
    return {name: value for name, value in names.items() if value is not None}


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    return {
        "info": entry.info,
        "choices": {name: _choices_to_json(choices) for name, choices in entry.choices.items()},
        "custom": entry.custom,
        "title_zh": entry.title_zh,
        "internal": entry.internal,
        "open_links": entry.open_links,
        "any_slot": entry.any_slot,
    }


def _entry_from_json(saved: dict[str, Any]) -> Entry:
    return Entry(
        info=saved["info"],
        choices={name: _choices_from_json(choices) for name, choices in saved["choices"].items()},
        custom=None if saved["custom"] is None else tuple(saved["custom"]),
        title_zh=saved["title_zh"],
        internal=saved["internal"],
        open_links=saved["open_links"],
        any_slot=saved["any_slot"],
    )


def _choices_to_json(choices: Choices) -> dict[str, Any]:
    match choices:
        case Models(folder):
            return {"models": folder}
        case InputFiles(suffixes, what, folder):
            return {"input_files": list(suffixes), "what": what, "folder": folder}
    module, name = getattr(choices, "__module__", ""), getattr(choices, "__qualname__", "")
    if not module or getattr(import_module(module), name, None) is not choices:
        raise TypeError(f"choices must be Models, InputFiles or a function of a module, not {choices!r}")
    return {"call": f"{module}:{name}"}


def _choices_from_json(saved: dict[str, Any]) -> Choices:
    if "models" in saved:
        return Models(saved["models"])
    if "input_files" in saved:
        return InputFiles(tuple(saved["input_files"]), saved["what"], saved["folder"])
    module, name = saved["call"].split(":")
    return getattr(import_module(module), name)
