"""Drafts: any prompt, checked in a second. Stand-ins take the place of what is slow; the rest of the graph is real.

A stand-in is another class_type, so its results have other signatures and never feed a final. Pictures saved by a
draft are marked and go to the temp folder.
"""

from __future__ import annotations

from typing import Any

from engine.graph.registry import Registry

# Which node stands in for which. A stand-in takes those inputs of the original that it declares.
STAND_INS = {
    "VAEDecode": "DraftDecode",
    "VAEDecodeTiled": "DraftDecode",
    "VAEEncode": "DraftEncode",
    "VAEEncodeTiled": "DraftEncode",
    "KSampler": "DraftSampler",
    "KSamplerAdvanced": "DraftSampler",
    "SamplerCustom": "DraftSamplerCustom",
    "SamplerCustomAdvanced": "DraftSamplerCustom",
    "CLIPTextEncode": "DraftTextEncode",
}


def drafted(prompt: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """The prompt with stand-ins where there are any; node ids stay."""
    return {node_id: _stand_in(node, registry) for node_id, node in prompt.items()}


def _stand_in(node: dict[str, Any], registry: Registry) -> dict[str, Any]:
    name = STAND_INS.get(node["class_type"])
    if name is None or name not in registry:
        return node
    taken = registry[name].inputs
    inputs = {key: value for key, value in (node.get("inputs") or {}).items() if key in taken}
    return {**node, "class_type": name, "inputs": inputs}
