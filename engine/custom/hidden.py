"""What a node may ask for beside its inputs: ComfyUI's hidden inputs."""

from __future__ import annotations

from typing import Any

from engine.graph.context import CallContext


def hidden_value(kind: str, ctx: CallContext) -> Any:
    """The value of a hidden input; None where the client sent nothing, and for kinds that are not known."""
    match kind:
        case "PROMPT":
            return ctx.prompt
        case "DYNPROMPT":
            return ctx.dynprompt
        case "EXTRA_PNGINFO":
            return ctx.extra_pnginfo or None
        case "UNIQUE_ID":
            return ctx.node_id
        case "AUTH_TOKEN_COMFY_ORG" | "API_KEY_COMFY_ORG":
            return ctx.secret(kind.lower())
        case "COMFY_USAGE_SOURCE":
            return ctx.usage_source
    return None
