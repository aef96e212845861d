"""Nodes for models that change pictures: what they are to look at beside the prompt."""

from __future__ import annotations

from typing import Annotated, Any

from engine.graph.node import CONDITIONING, In, NodeContext, Out, node


@node(
    "ReferenceLatent",
    title="ReferenceLatent",
    title_zh="参考潜变量",
    category="advanced/conditioning/edit_models",
    outputs=[Out("CONDITIONING")],
)
def reference_latent(
    ctx: NodeContext, conditioning: CONDITIONING, latent: Annotated[dict[str, Any] | None, In("LATENT")] = None
) -> tuple[list[list[Any]]]:
    """A picture that the model sees beside the one it makes. Several of these in a row are several pictures."""
    if latent is None:
        return (conditioning,)
    added = [latent["samples"]]
    return (
        [
            [cross, {**options, "reference_latents": [*options.get("reference_latents", ()), *added]}]
            for cross, options in conditioning
        ],
    )
