"""What a node may ask for beside its inputs: ComfyUI's hidden inputs."""

from __future__ import annotations

from typing import Any

from engine.graph.context import CallContext


def hidden_value(kind: str, ctx: CallContext) -> Any:
    """The value of a hidden input; None for kinds that this studio has nothing for (tokens of paid services)."""
    match kind:
        case "PROMPT":
            return ctx.prompt
        case "DYNPROMPT":
            return ctx.dynprompt
        case "EXTRA_PNGINFO":
            return ctx.extra_pnginfo or None
        case "UNIQUE_ID":
            return ctx.node_id
    return None
