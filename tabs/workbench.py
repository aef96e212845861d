"""What the Workflow tab has open: one workflow with its name, kept with the drafts, so that a reload loses nothing.

Whatever is opened (a workflow, an API prompt, a picture, A1111's text, a template) becomes a workflow here. `serial`
rises when it is opened from outside the editor, so that an editor that is open knows it has to load it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.errors import GONE, InputError, NotFound
from engine.graph import form
from engine.graph.form import NotAWorkflow
from engine.graph.group_nodes import without_group_nodes
from engine.graph.layout import to_workflow
from engine.graph.metadata import Metadata, read_metadata
from engine.graph.parameters import is_parameters, parse_parameters
from engine.graph.usual_form import with_usual_form
from engine.graph.workflow import is_prompt, to_prompt
from engine.jobs.types import Job
from engine.workflows import from_a1111
from engine.workspace import inside, is_text, replacing
from tabs.app import App

TEMPLATES = Path(__file__).resolve().parent.parent / "configs" / "workflows"
FIRST_TEMPLATE = "demo_text_to_image"
LONGEST_SHOWN = 120
LONGEST_PARAMETERS = 200_000
DRAFT = "workflow"


class NothingInside(InputError):
    en = "{name} does not say how it was made: there is no workflow in it."
    zh = "{name} 中没有工作流，没有记录它是如何生成的。"


class BadName(InputError):
    en = "'{name}' can't be a workflow's name. Use letters, digits, spaces, - and _, at most 100."
    zh = "“{name}”不能作为工作流名称。请使用文字、数字、空格、- 和 _，最多 100 个字符。"


@dataclass(frozen=True)
class Opened:
    workflow: dict[str, Any]
    name: str
    serial: int


def opened(app: App) -> Opened:
    """What is open; at first a template for the bundled model."""
    draft = app.drafts.get(DRAFT)
    workflow = draft.get("workflow")
    if isinstance(workflow, dict):
        return Opened(workflow, str(draft.get("name", "")), int(draft.get("serial", 0)))
    return Opened(template(FIRST_TEMPLATE), FIRST_TEMPLATE, 0)  # the editor starts with the same


def open_document(app: App, document: Any, name: str = "") -> Opened:
    """Open a workflow or an API prompt. Raises NotAWorkflow."""
    return _keep(app, as_workflow(app, document), name, bump=True)


def update(app: App, workflow: Any) -> Opened:
    """What the editor has made of what is open."""
    return _keep(app, as_workflow(app, workflow), opened(app).name, bump=False)


def open_file(app: App, file: IO[bytes], name: str) -> Opened:
    """Open a JSON file, a file of A1111's text, or the workflow that a picture carries.
    Raises NotAWorkflow, NothingInside, PictureError."""
    beginning = file.read(LONGEST_PARAMETERS)
    file.seek(0)
    if beginning[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        if (text := _as_text(beginning)) and is_parameters(text):
            return open_parameters(app, text, Path(name).stem)
        return open_metadata(app, read_metadata(file, name[:80]), name)
    try:
        document = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        told = (name[:80], str(error)[:100])
        words = {"reason": "{} is no JSON ({})", "reason_zh": "{} 不是 JSON（{}）"}
        raise NotAWorkflow(**{key: text.format(*told) for key, text in words.items()}) from error
    return open_document(app, document, Path(name).stem)


def open_picture(app: App, path: Path) -> Opened:
    """Open what a picture in one of the workspace's folders carries."""
    if not path.is_file():
        raise NotFound(what="picture", what_zh="图片", name=path.name, **GONE)
    return open_metadata(app, read_metadata(path), path.name)


def open_metadata(app: App, found: Metadata, name: str) -> Opened:
    stem = Path(name).stem
    if found.workflow and isinstance(found.workflow.get("nodes"), list):
        return open_document(app, found.workflow, stem)
    if found.prompt:
        return open_document(app, found.prompt, stem)
    if found.parameters:
        return open_parameters(app, found.parameters, stem)
    raise NothingInside(name=name[:80])


def open_parameters(app: App, text: str, name: str = "") -> Opened:
    """Open A1111's text as the graph that makes such a picture here."""
    models, loras = app.workspace.list_models("checkpoints"), app.workspace.list_models("loras")
    upscalers = app.workspace.list_models("upscale_models")
    return open_document(app, from_a1111(parse_parameters(text), models, loras, upscalers), name)


def open_template(app: App, name: str) -> Opened:
    return open_document(app, template(name), name)


def open_saved(app: App, name: str) -> Opened:
    path = saved_path(app, name)
    if not path.is_file():
        raise NotFound(what="workflow", what_zh="工作流", name=name[:80], **GONE)
    with path.open("rb") as file:
        return open_file(app, file, path.name)


def save(app: App, name: str) -> Opened:
    """Keep what is open where the editor keeps its workflows, with the inputs that were chosen for the form."""
    found = opened(app)
    with replacing(saved_path(app, name), "w") as file:
        json.dump(found.workflow, file, ensure_ascii=False)
    return _keep(app, found.workflow, name, bump=False)


def choose_inputs(app: App, inputs: Sequence[tuple[str, str]]) -> Opened:
    found = opened(app)
    with _judged():
        return _keep(app, form.with_chosen(found.workflow, inputs), found.name, bump=False)


def set_values(app: App, values: Mapping[str, Any]) -> Opened:
    found = opened(app)
    with _judged():
        changed = form.with_values(found.workflow, values, app.catalogue, app.workspace)
    return _keep(app, changed, found.name, bump=False)


def run(app: App, user: str = "") -> Job:
    """Queue what is open, as the editor would; seeds that are to change afterwards have changed then."""
    found, rng = opened(app), random.Random()
    prompt = to_prompt(found.workflow, app.catalogue, rng)
    with _judged():
        after = form.after_run(found.workflow, app.catalogue, app.workspace, rng)
    extra = {"extra_pnginfo": {"workflow": found.workflow}}
    job, _ = app.submit_prompt(prompt, extra_data=extra, user=user)
    _keep(app, after, found.name, bump=False)
    return job


def describe(app: App, found: Opened) -> dict[str, Any]:
    """What the tab shows: the workflow, its form, and every node with the inputs that could be in the form."""
    with _judged():
        nodes = form.described(found.workflow, app.catalogue, app.workspace)
        return {
            "name": found.name,
            "serial": found.serial,
            "workflow": found.workflow,
            "fields": form.fields(found.workflow, app.catalogue, app.workspace),
            "nodes": [{**row, "inputs": [[name, _short(value)] for name, value in row["inputs"]]} for row in nodes],
        }


def as_workflow(app: App, document: Any) -> dict[str, Any]:
    if isinstance(document, Mapping) and "nodes" not in document:
        if isinstance(document.get("workflow"), Mapping) and "nodes" in document["workflow"]:
            document = document["workflow"]  # a workflow and its prompt, as some programs keep them together
        elif isinstance(document.get("prompt"), Mapping):
            document = document["prompt"]  # what programs send to POST /prompt
    if is_prompt(document):
        with _judged():
            return with_usual_form(to_workflow(document, app.catalogue), app.catalogue, app.workspace)
    workflow = form.check_workflow(document)
    with _judged():
        return without_group_nodes(workflow, app.catalogue, whole=False)


def templates() -> list[dict[str, Any]]:
    """[{"name", "title", "title_zh", "description", "description_zh", "family"}] of ours, by family."""
    found = []
    for path in sorted(TEMPLATES.glob("*.json")):
        about = json.loads(path.read_text(encoding="utf-8"))["extra"]["easel"]
        found.append({"name": path.stem, **about})
    return sorted(found, key=lambda row: (row["order"], row["name"]))


def template(name: str) -> dict[str, Any]:
    path = inside(TEMPLATES, f"{name}.json")
    if not path.is_file() or "/" in name:
        listed = {
            "remedy": "GET /templates/index.json lists them.",
            "remedy_zh": "GET /templates/index.json 列出全部。",
        }
        raise NotFound(what="template", what_zh="模板", name=name[:80], **listed)
    return json.loads(path.read_text(encoding="utf-8"))


def saved(app: App) -> list[str]:
    """Names of the workflows that were saved, in the editor or here, newest first."""
    folder = saved_folder(app)
    paths = [path for path in folder.rglob("*.json") if is_text(str(path)) and not path.name.startswith(".")]
    paths = sorted((path for path in paths if path.is_file()), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.relative_to(folder).with_suffix("").as_posix() for path in paths]


def saved_folder(app: App) -> Path:
    return app.workspace.root / "user" / "workflows"


def saved_path(app: App, name: str) -> Path:
    plain = name.strip()
    if not plain or len(plain) > 100 or plain.startswith((".", "/")) or any(c in '\\:*?"<>|' for c in plain):
        raise BadName(name=name[:80])
    if not is_text(plain) or any(ord(c) < 32 for c in plain) or ".." in plain.split("/"):
        raise BadName(name=name[:80].encode("unicode_escape").decode())
    return inside(saved_folder(app), f"{plain}.json")


def _keep(app: App, workflow: dict[str, Any], name: str, *, bump: bool) -> Opened:
    serial = int(app.drafts.get(DRAFT).get("serial", 0)) + (1 if bump else 0)
    app.drafts.put(DRAFT, {"workflow": workflow, "name": name, "serial": serial})
    return Opened(workflow, name, serial)


@contextmanager
def _judged() -> Iterator[None]:
    """A workflow may be anything: what is odd deep inside is told as such."""
    try:
        yield
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        odd = f"{type(error).__name__}: {str(error)[:200]}"
        raise NotAWorkflow(reason=f"its parts do not fit ({odd})", reason_zh=f"内容不一致（{odd}）") from error


def _as_text(data: bytes) -> str:
    """The bytes as text, empty where they are none."""
    try:
        return "" if b"\0" in data else data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return ""


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"
