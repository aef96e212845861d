"""The choices of CLIPLoader and DualCLIPLoader: ComfyUI's names, those of families that are here. Torch-free."""

from __future__ import annotations

from engine.families.discover import specs
from engine.workspace import Workspace

ONE = (
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos", "lumina2", "wan",
    "hidream", "chroma", "ace", "omnigen2", "qwen_image", "hunyuan_image",
)  # fmt: skip
TWO = ("sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image")


def clip_types(workspace: Workspace) -> list[str]:
    """For one text encoder."""
    return _known(ONE)


def dual_clip_types(workspace: Workspace) -> list[str]:
    """For two."""
    return _known(TWO)


def _known(names: tuple[str, ...]) -> list[str]:
    known = {type for spec in specs() for type in spec.clip_types}
    return [name for name in names if name in known]
