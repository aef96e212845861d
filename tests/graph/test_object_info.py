"""Every node that the reference system has too offers the same sockets, defaults, ranges and choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.graph.catalogue import Catalogue
from engine.graph.registry import Registry
from engine.nodes import load_all
from engine.workspace import Workspace

THEIRS = json.loads((Path(__file__).parent / "data" / "object_info.json").read_text(encoding="utf-8"))
FIRST = {
    "CheckpointLoaderSimple", "LoraLoader", "LoraLoaderModelOnly", "CLIPTextEncode", "CLIPSetLastLayer",
    "EmptyLatentImage", "KSampler", "KSamplerAdvanced", "VAEDecode", "VAEEncode", "LoadImage", "SaveImage",
    "SaveLatent", "PreviewImage", "LatentUpscale",
}  # fmt: skip


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    registry = Registry()
    load_all(registry)
    return Catalogue.of(registry)


def test_the_first_nodes_are_there(catalogue):
    assert set(catalogue) >= FIRST


def test_sockets_are_the_reference_systems(catalogue, tmp_path):
    ours = catalogue.object_info(Workspace(tmp_path).create())
    known = [name for name in ours if name in THEIRS]
    assert len(known) >= 40
    for name in known:
        mine, other = ours[name], THEIRS[name]
        for key in ("output", "output_name", "output_is_list", "category", "output_node"):
            assert mine[key] == other[key], (name, key)
        assert hidden(mine) == hidden(other), name
        for group in ("required", "optional"):
            inputs, expected = mine["input"].get(group, {}), other["input"].get(group, {})
            assert list(inputs) == list(expected), name
            for item in expected:
                assert_same_input(f"{name}.{item}", inputs[item], expected[item], item in catalogue[name].choices)


def hidden(info: dict[str, Any]) -> dict[str, str]:
    """Some nodes of the reference system list them as inputs with empty options; no client looks at those."""
    listed = info["input"].get("hidden") or {}
    return {name: kind if isinstance(kind, str) else kind[0] for name, kind in listed.items()}


def assert_same_input(where: str, mine: list[Any], other: list[Any], listed_when_asked: bool) -> None:
    kind = other[1].get("options") if other[0] == "COMBO" else other[0]
    if listed_when_asked:
        assert isinstance(mine[0], list), where
    else:
        assert mine[0] == kind, where
    for option in ("default", "min", "max", "step", "multiline"):
        assert mine[1].get(option) == other[1].get(option), (where, option)


def test_every_node_says_in_chinese_what_it_is(catalogue):
    titles = catalogue.i18n()["zh"]["nodeDefs"]
    listed = [name for name in catalogue if not catalogue[name].internal]
    assert [name for name in listed if name not in titles] == []
