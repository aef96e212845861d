"""Finding and loading packs: each folder with an `__init__.py`, and each single .py file, of the custom_nodes roots.

A pack that fails is listed with its traceback and harms nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from engine.custom import surface, v1, v3
from engine.custom.attempts import Attempts
from engine.custom.guard import guarded
from engine.custom.host import Host, open_host
from engine.custom.serving import Registered, Served
from engine.custom.v1 import fresh
from engine.graph.catalogue import Catalogue
from engine.graph.registry import NodeType
from engine.workspace import is_text

if TYPE_CHECKING:
    from engine.custom.surface.server import PromptServer

log = logging.getLogger(__name__)

SLOW_SECONDS = 10.0  # of loading one pack, after which the log names it
PACKAGE = "custom_nodes"  # nodes of a pack say that they come from custom_nodes.NAME


@dataclass
class Pack:
    """One pack, as GET /custom_nodes tells it."""

    name: str
    path: str
    version: str = ""
    off: bool = False  # its owner has named it NAME.disabled
    seconds: float = 0.0
    nodes: list[str] = field(default_factory=list)
    web: str = ""  # the folder that is served at /extensions/NAME/
    routes: list[str] = field(default_factory=list)  # "GET /name/list": what it answers over HTTP
    error: str = ""  # the traceback of what kept it from loading
    problems: list[str] = field(default_factory=list)  # what is wrong with single nodes, and what does not work here

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class EndedTheWorker(Exception):
    """A pack that was not tried again."""


def load_packs(roots: Sequence[Path], opened: Host, say: Callable[[str], None] = lambda name: None) -> list[Pack]:
    """Load every pack below `roots` and add its nodes to the host's registry. Never raises for what a pack does; `say`
    hears the name of each before its turn."""
    open_host(opened)
    surface.install()
    found = list(_packs(roots))
    attempts = Attempts(opened.workspace.cache)
    for load in (_prestart, _load):
        for pack in found:
            if not pack.off and not pack.error:
                say(pack.name)
                _safely(pack, opened, attempts, load)
    return found


def _safely(pack: Pack, opened: Host, attempts: Attempts, load: Callable[[Pack, Host], None]) -> None:
    begin, path, step = time.monotonic(), Path(pack.path), load.__name__
    if attempts.are_enough(path, step):
        why = "it ended the worker process when it was loaded, twice. It is tried again when its files have changed."
        _failed(pack, EndedTheWorker(why))
        return
    attempts.begin(path, step)
    slow = threading.Timer(SLOW_SECONDS, _tell_slow, (pack,))
    slow.daemon = True
    slow.start()
    with guarded() as changed:
        try:
            load(pack, opened)
        except BaseException as error:  # also SystemExit: a pack must not end the worker
            _failed(pack, error)
    slow.cancel()
    pack.problems += changed()
    attempts.end(path, step)
    pack.seconds = round(pack.seconds + time.monotonic() - begin, 3)


def _tell_slow(pack: Pack) -> None:
    """In the log: nothing else would say why no job starts."""
    log.warning(
        "the pack %s has been loading for %g seconds, and the worker waits for it. If that does not end, rename %s to "
        "%s.disabled and start the studio again",
        *(pack.name, SLOW_SECONDS, pack.path, pack.path),
    )


def told(opened: Host, packs: Sequence[Pack], known: str, served: Served | None = None) -> dict[str, Any]:
    """{"digest", "packs", "entries", "replacements", "served"}; only the digest when it is the one that is `known`."""
    kinds = [fresh(opened.registry[name]) for pack in packs for name in pack.nodes]
    body = {
        "packs": [pack.to_json() for pack in packs],
        "entries": Catalogue.of(kinds).to_json(),
        "replacements": [one.to_json() for one in opened.replacements],
        "served": served.to_json() if served else None,
    }
    digest = hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).hexdigest()
    return {"digest": digest} if digest == known else {"digest": digest, **body}


def _packs(roots: Sequence[Path]) -> Iterator[Pack]:
    """In the order of their names, each under a name of its own."""
    names: set[str] = set()
    for root in roots:
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            if path.name.startswith((".", "__")) or not (path.is_dir() or path.suffix == ".py"):
                continue
            off = path.name.endswith(".disabled")
            name = path.name.removesuffix(".disabled").removesuffix(".py" if path.is_file() else "")
            name = name if is_text(name) else ascii(name)  # bytes that are no UTF-8
            while name in names:
                name += "_"
            names.add(name)
            pack = Pack(name, str(path), _version(path), off)
            if path.is_dir() and not off and not (path / "__init__.py").is_file():
                _failed(pack, ImportError(f"there is no __init__.py in {path}{_deeper(path)}"))
            yield pack


def _deeper(path: Path) -> str:
    inner = sorted(one.name for one in path.iterdir() if (one / "__init__.py").is_file())
    return f". Are its folders {', '.join(inner)} the packs? Then they belong beside it" if inner else ""


def _version(path: Path) -> str:
    """As its pyproject.toml says, which is where the registry of such packs looks."""
    try:
        project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8")).get("project")
    except (OSError, ValueError):
        return ""
    version = project.get("version") if isinstance(project, dict) else None
    return version[:40] if isinstance(version, str) else ""


def _module_name(pack: Pack, package: str = PACKAGE) -> str:
    """Without dots, which would make it a module of another package; no other pack can have a slash in its name."""
    return f"{package}.{pack.name.replace('.', '/')}"


def _prestart(pack: Pack, opened: Host) -> None:
    """Some packs prepare something before any other is imported."""
    script = Path(pack.path) / "prestartup_script.py"
    if script.is_file():
        _import(_module_name(pack, f"{PACKAGE}_prestart"), script)


def _load(pack: Pack, opened: Host) -> None:
    path, registry = Path(pack.path), opened.registry
    registered = Registered(prompt_server())
    try:
        module = _import(_module_name(pack), path / "__init__.py" if path.is_dir() else path)
        for node_type, cls in _node_types(pack, module):
            if node_type.name in registry:
                other = registry[node_type.name].module
                pack.problems.append(f"{node_type.name}: there is a node of that name in {other} already")
                continue
            registry.add_type(node_type)
            opened.classes[node_type.name] = cls
            pack.nodes.append(node_type.name)
        pack.web = _web_folder(path, module)
        pack.routes, problems = registered.finish()
        pack.problems += problems
    except BaseException:
        registered.undo()
        raise


def _node_types(pack: Pack, module: ModuleType) -> Iterator[tuple[NodeType, type]]:
    """V1 classes by name, or V3 classes of an extension: where a pack has both, the V1 ones count, as in ComfyUI."""
    where = f"{PACKAGE}.{pack.name}"
    classes = getattr(module, "NODE_CLASS_MAPPINGS", None)
    titles = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
    entrypoint = getattr(module, "comfy_entrypoint", None)
    if isinstance(classes, Mapping):
        rows = [(str(name), cls) for name, cls in classes.items()]
    elif callable(entrypoint):
        rows = [(cls.__name__, cls) for cls in v3.classes_of(entrypoint)]
    else:
        raise ImportError("it has neither NODE_CLASS_MAPPINGS nor comfy_entrypoint")
    for name, cls in rows:
        try:
            if v3.is_v3(cls):
                yield v3.node_type_of(cls, where), cls
            else:
                yield v1.node_type_of(name, cls, str(titles.get(name) or name), where), cls
        except Exception as error:  # one bad class of a pack
            pack.problems.append(f"{name}: {''.join(traceback.format_exception(error)).rstrip()}")
            log.warning("node %s of %s can't be used: %s", name, pack.name, error)


def prompt_server() -> PromptServer:
    """The one that packs register their routes with."""
    from engine.custom.surface.server import PromptServer

    return PromptServer.instance


def _import(name: str, path: Path) -> ModuleType:
    """A module from a file under a name that its own relative imports work with."""
    parent = name.partition(".")[0]
    if parent not in sys.modules:
        package = ModuleType(parent)
        package.__path__ = []
        sys.modules[parent] = package
    where = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=where)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _web_folder(path: Path, module: ModuleType) -> str:
    """WEB_DIRECTORY, or else what the pack has put into nodes.EXTENSION_WEB_DIRS; it must lie within the pack."""
    from engine.custom.surface.nodes import EXTENSION_WEB_DIRS

    given = [str(folder) for folder in EXTENSION_WEB_DIRS.values() if Path(folder).is_relative_to(path)]
    wanted = getattr(module, "WEB_DIRECTORY", None) or (given[0] if given else None)
    if not isinstance(wanted, str) or not path.is_dir():
        return ""
    folder = (path / wanted).resolve()
    return str(folder) if folder.is_dir() and folder.is_relative_to(path.resolve()) else ""


def _failed(pack: Pack, error: BaseException) -> None:
    surface.explain(error)
    needs = Path(pack.path) / "requirements.txt"
    if isinstance(error, ModuleNotFoundError) and needs.is_file():
        error.add_note(f"It may need what it names itself: {sys.executable} -m pip install -r {needs}")
    frame = error.__traceback__
    while frame is not None and not frame.tb_frame.f_code.co_filename.startswith(pack.path):
        frame = frame.tb_next
    if frame is not None:  # what lies before the pack's own lines is how it was loaded
        error = error.with_traceback(frame)
    pack.error = "".join(traceback.format_exception(error))
    log.warning("the pack %s can't be used\n%s", pack.name, pack.error)
