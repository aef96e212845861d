"""What a picture says about how it was made: the API `prompt`, the editor's `workflow` and A1111's `parameters`.

Written and read in PNG text, and in the EXIF of WebP and JPEG, where ComfyUI and A1111 put them. Torch-free.
"""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.errors import PictureError

EXIF_MODEL, EXIF_MAKE, EXIF_IFD, EXIF_USER_COMMENT = 0x0110, 0x010F, 0x8769, 0x9286
_CAPITALS = ("Prompt", "Workflow")  # as some packs write them
DRAFT = "easel_draft"  # the key that marks a draft
DAMAGE = (  # what Pillow raises on broken files
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    TypeError,
    KeyError,
    IndexError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class UnreadablePicture(PictureError):
    en = "'{name}' can't be read as a picture: {reason}."
    zh = "无法将“{name}”作为图片读取：{reason}。"


class NoPicture(UnreadablePicture):
    en = "'{name}' is no picture of a kind that is known here. Use PNG, WebP or JPEG."
    zh = "“{name}”不是这里认识的图片格式。请使用 PNG、WebP 或 JPEG。"


@dataclass(frozen=True)
class Metadata:
    """`prompt` and `workflow` are None when there is none that can be read; `other` is any further JSON or text."""

    prompt: dict[str, Any] | None = None
    workflow: dict[str, Any] | None = None
    parameters: str = ""
    draft: bool = False
    other: Mapping[str, Any] = field(default_factory=dict)

    def texts(self) -> dict[str, str]:
        """Everything as text by key, as it is written."""
        values = {"prompt": self.prompt, "workflow": self.workflow, **self.other}
        found = {name: json.dumps(value) for name, value in values.items() if value is not None}
        if self.parameters:
            found["parameters"] = self.parameters
        if self.draft:
            found[DRAFT] = "true"
        return found


def save_picture(picture: Image.Image, file: IO[bytes], kind: str, metadata: Metadata, **options: Any) -> None:
    """Write a picture as "PNG", "WEBP" or "JPEG" with its metadata."""
    if kind == "PNG":
        picture.save(file, "PNG", pnginfo=png_text(metadata), **options)
        return
    exif = picture.getexif()
    texts = metadata.texts()
    if parameters := texts.pop("parameters", ""):
        exif.get_ifd(EXIF_IFD)[EXIF_USER_COMMENT] = b"UNICODE\0" + parameters.encode("utf-16-be")
    if "prompt" in texts:
        exif[EXIF_MODEL] = f"prompt:{texts.pop('prompt')}"
    for tag, (name, text) in zip(range(EXIF_MAKE, 0, -1), texts.items(), strict=False):
        exif[tag] = f"{name}:{text}"
    picture.save(file, kind, exif=exif, **options)


def png_text(metadata: Metadata) -> PngInfo:
    """The text chunks of a PNG."""
    info = PngInfo()
    for name, text in metadata.texts().items():
        if text.isascii():
            info.add_text(name, text)
        else:
            info.add_itxt(name, text)
    return info


def read_metadata(source: Path | IO[bytes], name: str = "") -> Metadata:
    """What a picture file carries; nothing when it carries nothing. Raises UnreadablePicture for what is no picture,
    by its `name` if it is read from memory."""
    name = source.name if isinstance(source, Path) else name or getattr(source, "name", "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source) as picture:
                texts = _texts_of(picture)
    except Image.UnidentifiedImageError as error:
        raise NoPicture(name=name) from error
    except DAMAGE as error:
        raise UnreadablePicture(name=name, reason=str(error)[:200] or type(error).__name__) from error
    return _metadata_of(texts)


def _texts_of(picture: Image.Image) -> dict[str, str]:
    texts = {str(name): value for name, value in picture.info.items() if isinstance(value, str)}
    exif = picture.getexif()
    for tag in range(EXIF_MODEL, 0x0100, -1):
        name, colon, text = str(exif.get(tag, "")).partition(":")
        if colon and name.isidentifier():
            texts.setdefault(name.lower() if name in _CAPITALS else name, text)
    comment = exif.get_ifd(EXIF_IFD).get(EXIF_USER_COMMENT)
    if isinstance(comment, str):  # some write it as text, which Pillow takes for Latin-1
        comment = comment.encode("latin-1", "replace")
    if isinstance(comment, bytes) and len(comment) > 8:
        texts.setdefault("parameters", _comment_text(comment))
    if texts.get("parameters", "").startswith("{"):
        texts.update(_graphs_in(_json(texts["parameters"])))
    return texts


def _graphs_in(found: Any) -> dict[str, str]:
    """What some programs put in A1111's place: {"prompt", "workflow"}, or a prompt with more beside its nodes."""
    if not isinstance(found, dict):
        return {}
    nodes = {key: node for key, node in found.items() if isinstance(node, dict) and "class_type" in node}
    given = {name: found[name] for name in ("prompt", "workflow") if isinstance(found.get(name), dict)}
    graphs = given or ({"prompt": nodes} if nodes else {})
    return {name: json.dumps(graph) for name, graph in graphs.items()} | ({"parameters": ""} if graphs else {})


def _comment_text(comment: bytes) -> str:
    """EXIF's user comment: eight bytes that name the encoding, which some leave out, then the text."""
    code, text = comment[:8], comment[8:]
    if code.startswith(b"UNICODE"):
        little = text[1::2].count(0) > text[0::2].count(0)  # the byte order is not said; latin letters tell it
        return text.decode("utf-16-le" if little else "utf-16-be", "replace").strip("\ufeff\0")
    known = code.startswith((b"ASCII\0", b"\0\0", b"JIS\0"))
    return (text if known else comment).decode("utf-8", "replace").strip("\0")


def _metadata_of(texts: Mapping[str, str]) -> Metadata:
    other = {}
    for name, text in texts.items():
        if name not in ("prompt", "workflow", "parameters", DRAFT):
            value = _json(text)
            if isinstance(value, dict | list):
                other[name] = value
    prompt, workflow = _json(texts.get("prompt", "")), _json(texts.get("workflow", ""))
    return Metadata(
        prompt=prompt if isinstance(prompt, dict) else None,
        workflow=workflow if isinstance(workflow, dict) else None,
        parameters=texts.get("parameters", ""),
        draft=texts.get(DRAFT) == "true",
        other=other,
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
