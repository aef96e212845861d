"""The names that packs import, as modules of ours. `install` puts them where `import folder_paths` finds them.

Only what packs are known to use is there. Any other name below one of these packages fails to import with a message
that says so, and its pack is listed as not loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = (
    "folder_paths",
    "nodes",
    "server",
    "comfy",
    "comfy.cli_args",
    "comfy.comfy_types",
    "comfy.comfy_types.node_typing",
    "comfy.model_management",
    "comfy.samplers",
    "comfy.utils",
    "comfy_api",
    "comfy_api.latest",
    "comfy_api.latest.io",
    "comfy_api.latest.ui",
    "comfy_execution",
    "comfy_execution.graph",
    "comfy_execution.graph_utils",
    "comfy_execution.utils",
)
# Older names of the same.
ALIASES = {
    "comfy_api.latest._io": "comfy_api.latest.io",
    "comfy_api.latest._ui": "comfy_api.latest.ui",
    "comfy_api.v0_0_2": "comfy_api.latest",
    "comfy_api.v0_0_2.io": "comfy_api.latest.io",
    "comfy_api.v0_0_2.ui": "comfy_api.latest.ui",
}
ROOTS = ("comfy", "comfy_execution", "comfy_api", "comfy_extras", "comfy_config", "app", "api_server", "execution")


def install() -> None:
    """Make the modules importable under the names that packs know. Again is harmless."""
    for name in MODULES:
        sys.modules[name] = import_module(f"{__name__}.{name}")
    for name, other in ALIASES.items():
        sys.modules[name] = sys.modules[other]
    if not any(isinstance(finder, _Missing) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Missing())


class _Missing:
    """Says plainly what is missing instead of "No module named"."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in ROOTS:
            raise ModuleNotFoundError(
                f"{name!r} is not among the modules that Easel offers to node packs (docs/custom-nodes.md).", name=name
            )
        return None
