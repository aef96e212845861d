"""The names that packs import, as modules of ours. `install` puts them where `import folder_paths` finds them.

Only what packs are known to use is there. Any other name below one of these packages fails to import with a message
that says so, and its pack is listed as not loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

MODULES = (
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "nodes",
    "server",
    "comfy",
    "comfy.cli_args",
    "comfy.comfy_types",
    "comfy.comfy_types.node_typing",
    "comfy.controlnet",
    "comfy.k_diffusion",
    "comfy.k_diffusion.sampling",
    "comfy.latent_formats",
    "comfy.model_base",
    "comfy.model_management",
    "comfy.model_patcher",
    "comfy.sample",
    "comfy.samplers",
    "comfy.sd",
    "comfy.utils",
    "comfy_api",
    "comfy_api.latest",
    "comfy_api.latest.io",
    "comfy_api.latest.ui",
    "comfy_execution",
    "comfy_execution.graph",
    "comfy_execution.graph_utils",
    "comfy_execution.utils",
    "comfy_extras",
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


def explain(error: BaseException) -> None:
    """Says of an import that failed what the module of ours has instead: Python's own message does not."""
    module = sys.modules.get(getattr(error, "name", None) or "")
    if isinstance(error, ImportError) and module is not None and module.__name__.startswith(__name__ + "."):
        known = module.__name__.removeprefix(__name__ + ".")
        error.add_note(f"Easel's {known} has {', '.join(offered(module))} (docs/custom-nodes.md).")


def offered(module: ModuleType) -> list[str]:
    """What packs may take from one of these modules: its own names, without what it imports for itself."""
    here = vars(module)
    if "__all__" in here:
        return sorted(here["__all__"])

    def is_own(name: str, value: Any) -> bool:
        home = getattr(value, "__module__", module.__name__)
        return home == module.__name__ and name[0] != "_" and not isinstance(value, ModuleType)

    return sorted(name for name, value in here.items() if is_own(name, value))


class _Missing:
    """Says plainly what is missing instead of "No module named"."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.startswith("comfy_extras.nodes_"):
            return spec_from_loader(name, _Extras())
        if name.partition(".")[0] in ROOTS:
            raise ModuleNotFoundError(
                f"{name!r} is not among the modules that Easel offers to node packs (docs/custom-nodes.md).", name=name
            )
        return None


class _Extras(Loader):
    """Modules of comfy_extras."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        from engine.custom.surface.comfy_extras import Extras

        return Extras(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
