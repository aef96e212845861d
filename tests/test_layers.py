"""Who may import whom, and what must stay free of torch: the rule of CONTRIBUTING.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("studio", "tabs", "engine", "taggers", "trainers", "configs")
# Inside engine, upward only. Files of one row may use each other.
LAYERS = (
    ("errors", "collecting", "host_memory"),
    ("settings", "progress", "workspace", "patterns"),
    ("jobs",),
    ("graph",),
    ("weights",),
    ("models",),
    ("families",),
    ("dataset",),
    ("sampling",),
    ("nodes",),
    ("custom",),
    ("workflows",),
)
ALLOWED = {
    "configs": set[str](),
    "engine": {"configs"},
    "taggers": {"engine", "configs"},
    "trainers": {"engine", "configs"},
    "tabs": {"engine", "taggers", "trainers", "configs"},
    "studio": {"tabs", "engine", "taggers", "trainers", "configs"},
}
HEAVY = ("torch", "transformers", "diffusers", "peft", "accelerate", "onnxruntime", "safetensors.torch", "torchsde")
TORCH_FREE = (
    "engine.errors",
    "engine.collecting",
    "engine.host_memory",
    "engine.settings",
    "engine.progress",
    "engine.workspace",
    "engine.patterns",
    "engine.jobs",
    "engine.graph",
    "engine.dataset",
    "engine.weights.header",
    "engine.weights.identify",
    "engine.workflows",
    "taggers.catalogue",
    "taggers.results",
    "taggers.rules",
    "taggers.settings",
    "taggers.presets",
    "trainers.presets",
    "trainers.settings",
    "tabs",
    "studio",
)
IN_THE_WORKER = ("studio.worker_setup", "studio.demo", "engine.graph.pictures", "engine.graph.stand_ins")


def modules() -> list[str]:
    files = (path for name in OURS for path in sorted((ROOT / name).rglob("*.py")))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]


def source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str, top_only: bool = False) -> Iterator[str]:
    """What a module imports when it is loaded or when its functions run; what only a type checker sees is left out."""
    stack: list[ast.AST] = [ast.parse(source(module).read_text(encoding="utf-8"))]
    while stack:
        item = stack.pop()
        if isinstance(item, ast.If) and "TYPE_CHECKING" in ast.unparse(item.test):
            continue
        if top_only and isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(item, ast.Import):
            yield from (alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            assert item.level == 0, f"{module}: imports by their full name"
            yield from (f"{item.module}.{alias.name}" for alias in item.names)
        stack.extend(ast.iter_child_nodes(item))


def layer(module: str) -> int:
    part = module.split(".")[1]
    return next(row for row, names in enumerate(LAYERS) if part in names)


@pytest.mark.parametrize("module", modules())
def test_imports_go_downward_only(module: str) -> None:
    top = module.split(".")[0]
    for name in imports(module):
        other = name.split(".")[0]
        if other in OURS and other != top:
            assert other in ALLOWED[top], f"{module} imports {name}"
        if top == other == "engine" and "." in module and "." in name:
            assert layer(name) <= layer(module), f"{module} imports {name}, which is above it"


def is_torch_free(module: str) -> bool:
    def within(names: tuple[str, ...]) -> bool:
        return any(module == name or module.startswith(name + ".") for name in names)

    return (within(TORCH_FREE) or module.endswith(".spec")) and not within(IN_THE_WORKER)


def test_what_the_server_uses_loads_no_torch() -> None:
    names = [module for module in modules() if is_torch_free(module) and not module.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"    found = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
        "    if found:\n"
        "        sys.exit(f'{name} loads {found}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
