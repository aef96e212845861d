"""`comfy_api.latest`: V3 nodes, extensions, and what they may ask of the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from engine.custom.host import context, host
from engine.custom.surface.comfy_api.latest import io, ui
from engine.graph.replacement import Replacement

__all__ = ["ComfyAPI", "ComfyAPISync", "ComfyExtension", "Input", "InputImpl", "Types", "io", "ui"]

IO, UI = io, ui
# For annotations only: the values are tensors, dicts and objects of the studio.
Input = SimpleNamespace(Image=Any, Audio=dict, Mask=Any, Latent=dict, Video=Any)
InputImpl = SimpleNamespace()
Types = SimpleNamespace()


class ComfyExtension:
    """What a pack's `comfy_entrypoint` returns."""

    async def on_load(self) -> None:
        """Called once before the nodes are asked for."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        raise NotImplementedError(f"{type(self).__name__} has no get_node_list")


class ComfyAPISync:
    def __init__(self) -> None:
        self.execution = _Execution()
        self.node_replacement = _Replacements()


class ComfyAPI:
    """The same to be awaited."""

    def __init__(self) -> None:
        self.execution = _Awaited(_Execution())
        self.node_replacement = _Awaited(_Replacements())


class _Execution:
    def set_progress(
        self,
        value: float,
        max_value: float,
        node_id: str | None = None,
        preview_image: Any = None,
        ignore_size_limit: bool = False,
    ) -> None:
        """Tells how far the node is that runs now; an interrupt is raised here as well."""
        call = context()
        if call is None:
            return
        if preview_image is not None:
            call.preview(_picture(preview_image))
        call.progress(int(value), int(max_value))


class _Replacements:
    def register(self, replacement: io.NodeReplace) -> None:
        def rows(value: Any) -> Any:
            return None if value is None else tuple(value)

        host().replacements.append(
            Replacement(
                replacement.new_node_id,
                replacement.old_node_id,
                rows(replacement.old_widget_ids),
                rows(replacement.input_mapping),
                rows(replacement.output_mapping),
            )
        )


class _Awaited:
    def __init__(self, sync: Any) -> None:
        self._sync = sync

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._sync, name)

        async def call(*positional: Any, **named: Any) -> Any:
            return method(*positional, **named)

        return call


def _picture(image: Any) -> Any:
    """A PIL picture as it is; of a batch of pictures the first."""
    if not hasattr(image, "shape"):
        return image
    from engine.graph.pictures import to_picture

    return to_picture((image[0] if image.ndim == 4 else image).cpu().numpy())
