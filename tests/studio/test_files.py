"""Pictures in and out, as a stranger would send and ask for them."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zlib
from pathlib import Path

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.studio.conftest import Served


def png(size: tuple[int, int] = (4, 3), color: object = "red", mode: str = "RGB", **more: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, color).save(out, "PNG", **more)  # type: ignore[arg-type]
    return out.getvalue()


def upload(client: httpx.Client, name: str, data: bytes, **fields: str) -> httpx.Response:
    return client.post("/upload/image", files={"image": (name, data)}, data=fields)


def opened(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_an_uploaded_picture_can_be_seen_byte_for_byte(client: httpx.Client) -> None:
    data = png()
    assert upload(client, "a.png", data).json() == {"name": "a.png", "subfolder": "", "type": "input"}
    seen = client.get("/view", params={"filename": "a.png", "type": "input"})
    assert seen.content == data and seen.headers["content-type"] == "image/png"
    assert client.get("/api/view", params={"filename": "a.png [input]"}).content == data


def test_the_same_bytes_are_kept_once_and_others_get_a_number(client: httpx.Client) -> None:
    assert upload(client, "twice.png", png()).json()["name"] == "twice.png"
    assert upload(client, "twice.png", png()).json()["name"] == "twice.png"
    assert upload(client, "twice.png", png(color="blue")).json()["name"] == "twice (1).png"
    assert upload(client, "twice.png", png(color="green"), overwrite="true").json()["name"] == "twice.png"
    assert opened(client.get("/view", params={"filename": "twice.png", "type": "input"})).getpixel((0, 0)) == (
        0,
        128,
        0,
    )


@pytest.mark.parametrize("name", ["with spaces.png", "小猫.png", "🐈‍⬛.png", "a'b;c.png", "ünïcode é.jpg"])
def test_names_of_all_languages_go_there_and_back(client: httpx.Client, name: str) -> None:
    assert upload(client, name, png(), subfolder="中文 folder", overwrite="1").json()["name"] == name
    query = {"filename": name, "type": "input", "subfolder": "中文 folder"}
    assert client.get("/view", params=query).status_code == 200


BAD_NAMES = ["../x.png", "/etc/x.png", "..\\x.png", ".hidden.png", "a\x00b.png", "a/b.png", "x" * 300, "."]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_plain_name_is_refused(client: httpx.Client, name: str) -> None:
    form = (
        f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
        + png()
        + b"\r\n--b--\r\n"
    )
    answer = client.post("/upload/image", content=form, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 400


@pytest.mark.parametrize("subfolder", ["..", "../..", "/etc", "a/../../b", "..\\..", "C:\\x", "a\x00b"])
def test_no_subfolder_leads_out(client: httpx.Client, served: Served, subfolder: str) -> None:
    assert upload(client, "a.png", png(), subfolder=subfolder).status_code == 400
    for name in ("x.png", "access.json"):
        query = {"filename": name, "subfolder": subfolder, "type": "input"}
        assert client.get("/view", params=query).status_code == 400


@pytest.mark.parametrize(
    "filename", ["../access.json", "..%2faccess.json", "/etc/passwd", "a/../../access.json", "C:/x"]
)
def test_no_file_name_leads_out(client: httpx.Client, filename: str) -> None:
    answer = client.get("/view", params={"filename": filename, "type": "output"})
    assert answer.status_code in (400, 404) and b"secret" not in answer.content


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_that_leads_out_is_not_followed(client: httpx.Client, served: Served, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    (served.app.workspace.output / "link.png").symlink_to(tmp_path / "secret.png")
    (served.app.workspace.input / "folder").symlink_to(tmp_path)
    assert client.get("/view", params={"filename": "link.png"}).status_code == 400
    query = {"filename": "secret.png", "subfolder": "folder", "type": "input"}
    assert client.get("/view", params=query).status_code == 400
    assert upload(client, "x.png", png(), subfolder="folder").status_code == 400


def test_what_is_not_there_is_404(client: httpx.Client) -> None:
    for query in ({}, {"filename": ""}, {"filename": "none.png"}, {"filename": "x", "type": "nowhere"}):
        assert client.get("/view", params=query).status_code == 404


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it is 60,000 x 60,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


NOT_PICTURES = {
    "zero bytes": b"",
    "text": b"not a picture",
    "a page": b"<html><script>alert(1)</script></html>",
    "a drawing with scripts": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "half a header": png()[:20],
    "an archive": b"PK\x03\x04" + bytes(100),
    "a bomb": bomb(),
}


@pytest.mark.parametrize("what", NOT_PICTURES)
def test_what_is_no_picture_is_refused_and_leaves_nothing(client: httpx.Client, served: Served, what: str) -> None:
    before = sorted(p.name for p in served.app.workspace.input.iterdir())
    answer = upload(client, "bad.png", NOT_PICTURES[what])
    assert answer.status_code == 400 and answer.json()["error"]["zh"]
    assert sorted(p.name for p in served.app.workspace.input.iterdir()) == before


def test_an_upload_over_the_limit_is_refused_with_or_without_its_length(served: Served) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}

    def endless() -> object:
        yield head
        for _ in range(101):
            yield bytes(2**20)

    with served.client() as client:
        assert client.post("/upload/image", content=endless(), headers=kind).status_code == 413  # type: ignore[arg-type]
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(b"POST /upload/image HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n")
        assert raw.recv(100).split(b" ")[1] == b"413"


def test_a_form_without_a_file_is_refused(client: httpx.Client) -> None:
    assert client.post("/upload/image", data={"image": "x"}).status_code == 404
    assert client.post("/upload/image", content=b"x").status_code == 404
    broken = {"Content-Type": "multipart/form-data; boundary=b"}
    assert client.post("/upload/image", content=b"--x", headers=broken).status_code in (400, 404)


def test_previews_and_channels(client: httpx.Client) -> None:
    upload(client, "alpha.png", png((8, 8), (10, 20, 30, 40), "RGBA"), overwrite="true")
    query = {"filename": "alpha.png", "type": "input"}
    assert opened(client.get("/view", params={**query, "channel": "rgb"})).getpixel((0, 0)) == (10, 20, 30)
    alpha = opened(client.get("/view", params={**query, "channel": "a"}))
    assert alpha.mode == "RGBA" and alpha.getchannel("A").getpixel((0, 0)) == 40
    webp = client.get("/view", params={**query, "preview": "webp;50"})
    assert webp.headers["content-type"] == "image/webp" and opened(webp).format == "WEBP"
    assert opened(client.get("/view", params={**query, "preview": "jpeg;90"})).mode == "RGB"
    assert opened(client.get("/view", params={**query, "preview": "nonsense;x"})).format == "WEBP"


def test_a_broken_picture_has_no_preview_but_an_error(client: httpx.Client, served: Served) -> None:
    (served.app.workspace.output / "cut.png").write_bytes(png((64, 64), mode="RGB")[:80])
    assert client.get("/view", params={"filename": "cut.png", "preview": "webp"}).status_code == 400


def test_what_could_run_in_a_page_is_never_served_as_such(client: httpx.Client, served: Served) -> None:
    for name in ("page.html", "drawing.svg", "code.js", "style.css"):
        (served.app.workspace.output / name).write_text("<script>alert(1)</script>")
        answer = client.get("/view", params={"filename": name})
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_mask_gives_its_alpha_to_the_picture_it_is_for(client: httpx.Client) -> None:
    info = PngInfo()
    info.add_text("prompt", "{}")
    upload(client, "base.png", png((4, 4), "white", pnginfo=info), overwrite="true")
    reference = json.dumps({"filename": "base.png", "type": "input"})
    mask = {"image": ("mask.png", png((4, 4), (0, 0, 0, 77), "RGBA"))}
    answer = client.post("/upload/mask", files=mask, data={"original_ref": reference, "overwrite": "true"})
    assert answer.json() == {"name": "mask.png", "subfolder": "", "type": "input"}
    made = opened(client.get("/view", params={"filename": "mask.png", "type": "input"}))
    assert made.getpixel((0, 0)) == (255, 255, 255, 77) and made.info["prompt"] == "{}"
    for wrong in ("", "[]", "{", '{"filename": "../x.png"}', '{"filename": "none.png"}', '{"filename": 3}'):
        answer = client.post("/upload/mask", files=mask, data={"original_ref": wrong})
        assert answer.status_code in (400, 404)
