"""What each command of `studio` does. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import CHECK_PATH, InputError, NotFound
from engine.workspace import Workspace

if TYPE_CHECKING:
    from studio.settings import StudioSettings


class BadThreshold(InputError):
    en = "'{value}' is no threshold. Write CATEGORY=SCORE, e.g. general=0.35."
    zh = "“{value}”不是有效的阈值。请写成 类别=分数，例如 general=0.35。"


class BadTool(InputError):
    en = """'{value}' is no tool. Write its settings as JSON, e.g. {{"kind": "florence2", "model": "florence"}}."""
    zh = """“{value}”不是有效的工具。请以 JSON 写出其设置，例如 {{"kind": "florence2", "model": "florence"}}。"""


class NotAWorkflow(InputError):
    en = "{path} is no workflow: {reason}"
    zh = "{path} 不是工作流：{reason_zh}"


def serve(options: argparse.Namespace) -> int:
    from studio.kinds import job_kinds
    from studio.server import serve as serve_studio

    browser = False if options.no_browser else None
    more = {"host": options.host, "port": options.port, "browser": browser, "custom_nodes": options.custom_nodes}
    workspace, settings = _open(options, **more)
    return serve_studio(workspace, settings, job_kinds())


def tag(options: argparse.Namespace) -> int:
    from engine.dataset.library import Library
    from taggers.presets import preset

    workspace, settings = _open(options)
    workspace.create()
    library = Library(workspace)
    with library.at(options.folder) if options.folder.is_dir() else library.open(str(options.folder)) as dataset:
        name = dataset.name
    wanted: dict[str, Any] = {**(preset(options.preset) if options.preset else {}), "dataset": name}
    if options.tool:
        wanted["tools"] = [*wanted.get("tools", ()), *map(_tool, options.tool)]
    if options.tagger or not (wanted.get("tagger") or wanted.get("tools")):
        wanted["tagger"] = options.tagger or _only_tagger(workspace)
    if options.threshold:
        wanted["thresholds"] = {**wanted.get("thresholds", {}), **dict(map(_threshold, options.threshold))}
    if options.trigger:
        wanted["captions"] = {**wanted.get("captions", {}), "trigger_word": options.trigger}
    if options.ray:
        wanted["ray"] = os.environ["EASEL_RAY"] = options.ray  # whoever types commands here is the owner
    if options.export:
        wanted["export"] = options.export
    job = _do(workspace, settings, "tag", wanted, f"tag {name}")
    print(json.dumps(job["result"], ensure_ascii=False, indent=1))
    return 0


def train(options: argparse.Namespace) -> int:
    from trainers.presets import read_settings

    wanted = read_settings(options.file)
    workspace, settings = _open(options)
    job = _do(workspace, settings, "train", wanted.model_dump(mode="json", exclude_unset=True), options.file.stem)
    print(json.dumps(job["result"], ensure_ascii=False, indent=1))
    return 0


def run(options: argparse.Namespace) -> int:
    from engine.graph.workflow import to_prompt
    from studio.bars import Bar
    from studio.session import follow, session

    document = _read_workflow(options.file)
    workspace, settings = _open(options)
    with session(workspace, settings) as studio:
        wanted: dict[str, Any] = {"prompt": document, "draft": options.draft}
        if "nodes" in document:
            wanted["prompt"] = to_prompt(document, studio.catalogue())
            wanted["extra_data"] = {"extra_pnginfo": {"workflow": document}}
        job = follow(studio, studio.prompt(wanted), Bar())
    for output in job["result"]["outputs"].values():
        for item in (row for rows in output.values() if isinstance(rows, list) for row in rows):
            if isinstance(item, dict) and "filename" in item:
                folder = {"output": workspace.output, "temp": workspace.temp}.get(item["type"], workspace.root)
                print(folder / item["subfolder"] / item["filename"])
    return 0


def jobs(options: argparse.Namespace) -> int:
    from engine.jobs.store import JobStore
    from engine.jobs.types import JobState

    workspace = Workspace(options.workspace.resolve())
    if not workspace.database.is_file():
        print("No jobs yet.")
        return 0
    with contextlib.closing(JobStore(workspace.database)) as store:
        if options.action != "list":
            found = [job for job in store.list(limit=100_000) if options.job and job.id.startswith(options.job)]
            if len(found) != 1:
                remedy, remedy_zh = (
                    ("More than one begins so.", "有多个任务以此开头。")
                    if found
                    else ("Say which one: studio jobs --all lists them.", "请指明任务：studio jobs --all 会列出它们。")
                )
                raise NotFound(what="job", what_zh="任务", name=options.job or "", remedy=remedy, remedy_zh=remedy_zh)
            getattr(store, options.action)(found[0].id)
            print(f"{options.action}: {found[0].id}")
            return 0
        active = [state for state in JobState if not state.ended]
        for job in store.list(states=None if options.all else active, limit=200):
            percent = f"{job.progress.fraction:4.0%}" if job.progress.total else "    "
            error = f"  {job.error['en']}" if job.error and job.state.ended else ""
            print(f"{job.id[:8]}  {job.state:<11} {percent}  {job.kind:<8} {job.title}{error}")
    return 0


def doctor(options: argparse.Namespace) -> int:
    from studio.doctor import report

    return report(Workspace(options.workspace.resolve()))


def password(options: argparse.Namespace) -> int:
    import getpass

    from studio.access import Access, generate_password

    chosen = generate_password() if options.generate else getpass.getpass("New password: ")
    if len(chosen) < 8:
        print("studio: the password must have at least 8 characters.", file=sys.stderr)
        return 2
    Access(options.workspace.resolve() / "access.json").set_password(chosen)
    print(f"The password is now: {chosen}" if options.generate else "The password is set. Open sessions have ended.")
    return 0


def token(options: argparse.Namespace) -> int:
    from datetime import date

    from studio.access import Access

    access = Access(options.workspace.resolve() / "access.json")
    if options.revoke:
        found = access.revoke_token(options.revoke)
        print("Revoked." if found else f"There is no token {options.revoke}.")
        return 0 if found else 2
    if options.name:
        print(f"{access.new_token(options.name)}\n(shown only this once; send it as 'Authorization: Bearer ...')")
        return 0
    for row in access.tokens():
        print(f"{row['id']}  {date.fromtimestamp(row['created'])}  {row['name']}")
    return 0


def _open(options: argparse.Namespace, **more: Any) -> tuple[Workspace, StudioSettings]:
    """The workspace and its settings, with the flags of the command line on top."""
    from studio.model_paths import ModelPaths, read_extra_model_paths
    from studio.settings import load_settings

    root = options.workspace.resolve()
    flags = ("device", "output", "extra_model_paths", "cache")
    settings = load_settings(Workspace(root), **{name: getattr(options, name) for name in flags}, **more)
    more_paths = read_extra_model_paths(settings.extra_model_paths) if settings.extra_model_paths else ModelPaths()
    output = settings.output.resolve() if settings.output else None
    return Workspace(root, more_paths.extra, output, settings.allow_pickle, more_paths.first), settings


def _do(
    workspace: Workspace, settings: StudioSettings, kind: str, wanted: dict[str, Any], title: str
) -> dict[str, Any]:
    from studio.bars import Bar
    from studio.session import follow, session

    with session(workspace, settings) as studio:
        return follow(studio, studio.submit(kind, wanted, title), Bar())


def _threshold(value: str) -> tuple[str, float]:
    category, _, score = value.partition("=")
    try:
        return category, float(score)
    except ValueError as error:
        raise BadThreshold(value=value) from error


def _tool(value: str) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except ValueError as error:
        raise BadTool(value=value) from error
    if not isinstance(found, dict):
        raise BadTool(value=value)
    return found


def _only_tagger(workspace: Workspace) -> str:
    from taggers.catalogue import installed

    known = [one.name for one in installed(workspace)]
    if len(known) != 1:
        raise NotFound(
            what="tagger",
            what_zh="打标器",
            name="",
            remedy=f"Choose one with --tagger. There are: {', '.join(known)}.",
            remedy_zh=f"请用 --tagger 选择。现有：{', '.join(known)}。",
        )
    return known[0]


def _read_workflow(path: Path) -> dict[str, Any]:
    """A prompt or an editor's workflow, from a JSON file or from a picture that carries one."""
    from engine.graph.metadata import read_metadata
    from engine.graph.node import PICTURES

    try:
        if path.suffix.lower() in PICTURES:
            found = read_metadata(path)
            document = found.prompt or found.workflow
        else:
            document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise NotFound(what="workflow", what_zh="工作流", name=path, **CHECK_PATH) from error
    except (ValueError, RecursionError) as error:
        raise NotAWorkflow(path=path, reason=f"no JSON ({error})", reason_zh=f"不是 JSON（{error}）") from error
    document = document.get("prompt", document) if isinstance(document, dict) else document
    if not isinstance(document, dict):
        raise NotAWorkflow(path=path, reason="it holds no object {...} of nodes", reason_zh="其中没有节点对象 {...}")
    return document
