"""Reading what clients send: JSON and multipart bodies with a limit, and file names that stay in their folder."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message

from engine.errors import (
    EaselError,
    FileError,
    GraphError,
    InputError,
    JobError,
    NotFound,
    OutsideWorkspace,
    PathError,
    StorageError,
    describe,
)
from engine.jobs.errors import UnknownJob, WorkerGone, WorkerNotReady
from engine.workspace import Workspace, inside
from studio.gate import OwnerOnly

MIB = 2**20


class BodyTooLarge(InputError):
    en = "The request is larger than {limit} MiB. The limit is set in studio.toml under [limits]."
    zh = "请求超过 {limit} MiB。可在 studio.toml 的 [limits] 中修改上限。"


class NotJson(InputError):
    en = "The request is not valid JSON: {reason}"
    zh = "请求不是有效的 JSON：{reason}"


class BadFileName(PathError):
    en = "'{name}' can't be used as a file name."
    zh = "“{name}”不能用作文件名。"


# The first that fits.
_STATUS: tuple[tuple[type[EaselError] | tuple[type[EaselError], ...], int], ...] = (
    (OwnerOnly, 403),
    (BodyTooLarge, 413),
    ((NotFound, UnknownJob), 404),
    ((InputError, FileError, GraphError), 400),
    ((WorkerNotReady, WorkerGone), 503),
    (StorageError, 507),
    (JobError, 409),
    (EaselError, 500),
)


def limited(request: Request, limit_mib: int) -> Request:
    """The same request; reading more than the limit raises BodyTooLarge, whatever Content-Length says."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:30]) > limit_mib * MIB:
        raise BodyTooLarge(limit=limit_mib)
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > limit_mib * MIB:
            raise BodyTooLarge(limit=limit_mib)
        return message

    return Request(request.scope, receive)


async def json_body(request: Request, limit_mib: int = 4) -> Any:
    """The body as JSON; an empty body is {}. Raises NotJson, also for NaN and for nesting without end."""
    body = await limited(request, limit_mib).body()
    if not body.strip():
        return {}
    return await run_in_threadpool(parsed, body) if len(body) > MIB else parsed(body)


async def json_object(request: Request, limit_mib: int = 4) -> dict[str, Any]:
    body = await json_body(request, limit_mib)
    if not isinstance(body, dict):
        raise NotJson(reason="an object {...} was expected")
    return body


async def file_body(request: Request, field: str, limit_mib: int) -> tuple[UploadFile, dict[str, str]]:
    """A multipart upload: the file and the other fields."""
    form = await limited(request, limit_mib).form(max_files=2, max_fields=20)
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    file = form.get(field)
    if not isinstance(file, UploadFile) or not file.filename:
        raise NotFound(
            what="field of the form",
            what_zh="表单字段",
            name=field,
            remedy="Send the file as multipart/form-data.",
            remedy_zh="请以 multipart/form-data 发送文件。",
        )
    return file, fields


def plain_name(name: str) -> str:
    """One file name without folders. Raises BadFileName for everything else, hidden files included."""
    unsafe = not name or name.startswith(".") or name != name.strip() or len(name.encode()) > 200
    if unsafe or any(character in '/\\:*?"<>|' or ord(character) < 32 for character in name):
        raise BadFileName(name=name[:80])
    return name


def folder_of(workspace: Workspace, kind: str) -> Path:
    """ComfyUI's three folders of pictures."""
    folders = {"output": workspace.output, "input": workspace.input, "temp": workspace.temp}
    if kind not in folders:
        raise NotFound(
            what="folder type",
            what_zh="文件夹类型",
            name=kind[:40],
            remedy="Known: output, input, temp.",
            remedy_zh="可用：output、input、temp。",
        )
    return folders[kind]


def path_in(root: Path, *parts: str) -> Path:
    """A path below root. Raises OutsideWorkspace for absolute names, '..' and links that lead out."""
    for part in parts:
        pieces = part.replace("\\", "/").split("/")
        if part.startswith(("/", "\\")) or ".." in pieces or (len(part) > 1 and part[1] == ":"):
            raise OutsideWorkspace(path=part[:200], root=root.name)
    return inside(root, "/".join(part for part in parts if part))


# Too long; through a file as if it were a folder; a folder where a file is meant.
_BAD_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def error_response(request: Request, error: Exception) -> Response:
    """The handler of every EaselError that a route lets go."""
    assert isinstance(error, EaselError)
    return refusal(error, next(status for kinds, status in _STATUS if isinstance(error, kinds)))


def refusal(error: EaselError, status: int) -> Response:
    described = error.to_json()
    return JSONResponse({"error": {"type": described["code"], "message": described["en"], **described}}, status)


def system_response(request: Request, error: Exception) -> Response:
    """The handler of every OSError: a name that the disk does not take is the client's, everything else is ours."""
    if isinstance(error, OSError) and error.errno in _BAD_NAMES:
        return error_response(request, BadFileName(name=str(error.filename)[-80:]))
    raise error


def failure_response(request: Request, error: Exception) -> Response:
    """The handler of everything else: a mistake of ours, told in the same shape. The server logs it."""
    described = describe(error)
    return JSONResponse({"error": {"type": described["code"], "message": described["en"], **described}}, 500)


def empty(status: int = 200) -> Response:
    return Response(status_code=status)


def text(words: str, status: int) -> Response:
    return PlainTextResponse(words, status)


def parsed(body: bytes) -> Any:
    """JSON. Raises NotJson."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    def finite(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise ValueError(f"{digits[:40]} is too large for a number")
        return number

    try:
        text = body.decode(json.detect_encoding(body))
        value = json.loads(text, parse_constant=refuse, parse_float=finite)
        if "\\u" in text:  # half a surrogate pair is no text that could be kept or sent on
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise NotJson(reason=str(error)[:200]) from error
