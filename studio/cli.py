"""The command line: `studio`, and `studio tag`, `train`, `run`, `jobs`, `doctor`, `password`, `token`.

It only reads arguments; what a command needs is imported when it runs, so that `studio --help` is there at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import EaselError, Language

COMMANDS = ("serve", "tag", "train", "run", "jobs", "doctor", "password", "token")


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or (arguments[0] not in COMMANDS and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "serve")  # `studio --port 8000` is `studio serve --port 8000`
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except EaselError as error:
        print(f"studio: {error.text(_language())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `studio jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    from studio import commands

    top = argparse.ArgumentParser(prog="studio", description="Tag a dataset, train a LoRA on it, generate with it.")
    top.add_argument("--version", action=_Version)
    commands_of = top.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, run: object, help: str) -> argparse.ArgumentParser:
        made = commands_of.add_parser(name, help=help, description=help)
        made.add_argument("--workspace", type=Path, default=_default_workspace(), metavar="DIR", help="where all lies")
        made.set_defaults(run=run)
        return made

    serve = command("serve", commands.serve, "Serve the page and the API (what `studio` alone does).")
    serve.add_argument("--host", help="address to listen on (127.0.0.1; 0.0.0.0 for other machines, with a password)")
    serve.add_argument("--port", type=int, help="port (7860; 0 takes a free one)")
    serve.add_argument("--no-browser", action="store_true", help="do not open a browser")
    serve.add_argument("--custom-nodes", action="store_true", default=None, help="run node code from custom_nodes/")
    _worker_options(serve)

    tag = command("tag", commands.tag, "Tag the pictures of a folder; captions go beside them with --export.")
    tag.add_argument("folder", type=Path, metavar="DIR", help="folder of pictures, or the name of a dataset")
    tag.add_argument("--preset", help="settings from configs/tag, e.g. wd-swinv2-tagger-v3-script")
    tag.add_argument("--tagger", help="a tagger in models/taggers")
    tag.add_argument(
        "--tool",
        action="append",
        default=[],
        metavar="JSON",
        help="""one more tool, e.g. '{"kind": "joycaption", "model": "joy"}'; may be repeated""",
    )
    tag.add_argument("--threshold", action="append", default=[], metavar="CATEGORY=SCORE", help="may be repeated")
    tag.add_argument("--trigger", help="trigger word that comes first in every caption")
    tag.add_argument("--export", nargs="?", const=".txt", choices=(".txt", ".caption"), help="write caption files")
    tag.add_argument("--ray", metavar="ADDRESS", help="read on the machines of a Ray cluster (auto, HOST:PORT)")
    _worker_options(tag)

    train = command("train", commands.train, "Train a LoRA as a TOML file says.")
    train.add_argument("file", type=Path, metavar="FILE", help="settings, as configs/train has them")
    _worker_options(train)

    run = command(
        "run",
        commands.run,
        "Run a workflow (or what a picture carries) and say where its pictures are.",
    )
    run.add_argument("file", type=Path, metavar="WORKFLOW")
    run.add_argument("--draft", action="store_true", help="check it in a second with quick stand-ins")
    _worker_options(run)

    jobs = command("jobs", commands.jobs, "Show the queue, or act on one job.")
    jobs.add_argument("action", nargs="?", choices=("list", "cancel", "pause", "resume", "retry"), default="list")
    jobs.add_argument("job", nargs="?", metavar="ID", help="a job's id, or the first letters of it")
    jobs.add_argument("--all", action="store_true", help="ended jobs as well")

    command("doctor", commands.doctor, "Versions, device, disk, what is missing and how to get it.")
    password = command("password", commands.password, "Set the password for other machines; open sessions end.")
    password.add_argument("--generate", action="store_true", help="make one instead of asking")
    token = command("token", commands.token, "Make, list or revoke API tokens.")
    token.add_argument("name", nargs="?", help="make a token of this name; it is shown once")
    token.add_argument("--revoke", metavar="ID")
    return top


def _worker_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", metavar="auto|cuda:N|cpu", help="what the worker computes on")
    command.add_argument("--output", type=Path, metavar="DIR", help="folder for pictures")
    command.add_argument("--extra-model-paths", type=Path, metavar="FILE", help="a ComfyUI extra_model_paths.yaml")
    command.add_argument("--cache", metavar="none|classic|lru:N|ram[:GB]", help="which results of nodes are kept")


def _default_workspace() -> Path:
    return Path(os.environ.get("EASEL_WORKSPACE") or "workspace")


def _language() -> Language:
    """The terminal's."""
    spoken = next((v for n in ("LC_ALL", "LC_MESSAGES", "LANG") if (v := os.environ.get(n))), "")
    return "zh" if spoken.lower().startswith("zh") else "en"


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and end")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from studio.versions import installed_version

        parser.exit(message=f"Easel {installed_version('easel-studio') or '(not installed)'}\n")


if __name__ == "__main__":
    sys.exit(main())
