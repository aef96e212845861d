"""Uploads of gigabytes against a studio in a process of its own: flat memory, and refused over the limit."""

from __future__ import annotations

import http.client
import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Studio, start_studio
from tests.tabs.datasets import png

pytestmark = [pytest.mark.slow]
BLOCK = bytes(1 << 20)
GIGABYTES = 2200  # blocks
FLAT = 64  # MiB that the server may grow by


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = start_studio(tmp_path_factory.mktemp("uploads") / "workspace")
    studio.post("/studio/datasets", {"name": "set"})
    yield studio
    studio.stop()


class _Sent(io.RawIOBase):
    """What a zip file writes goes out at once: it is never whole anywhere on this side."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        block = bytes(data)
        if block:
            self.connection.send(b"%x\r\n%s\r\n" % (len(block), block))
        return len(block)


def opened(studio: Studio, path: str, **headers: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(studio.url.removeprefix("http://"), timeout=120)
    connection.putrequest("POST", path)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    return connection


def answered(connection: http.client.HTTPConnection) -> tuple[int, dict[str, Any]]:
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def peak(studio: Studio) -> float:
    """Most memory that the server process ever held, in MiB."""
    status = Path(f"/proc/{studio.process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def left(studio: Studio) -> list[Path]:
    folder = studio.workspace / "cache" / "uploads"
    return list(folder.iterdir()) if folder.is_dir() else []


def test_a_zip_of_two_gigabytes_streams_to_the_disk_and_is_unpacked(studio: Studio) -> None:
    before, began = peak(studio), time.monotonic()
    connection = opened(studio, "/studio/datasets/set/archive?name=large.zip", Transfer_Encoding="chunked")
    with zipfile.ZipFile(_Sent(connection), "w") as packed:  # type: ignore[arg-type]
        with packed.open("film.bin", "w", force_zip64=True) as entry:
            for _ in range(GIGABYTES):
                entry.write(BLOCK)
        packed.writestr("red.png", png("red"))
    connection.send(b"0\r\n\r\n")
    status, answer = answered(connection)
    seconds = time.monotonic() - began
    assert status == 202
    assert peak(studio) - before < FLAT
    assert seconds < 240  # 10 where nothing else runs
    assert studio.wait_for_job(answer["job"]) == "done"
    result = studio.get(f"/studio/jobs/{answer['job']}")["result"]
    assert (result["files"], list(result["problems"])) == (1, ["film.bin"])
    assert studio.get("/studio/datasets/set")["total"] == 1
    assert left(studio) == []


def test_more_than_the_limit_is_refused_by_its_length_before_it_is_sent(studio: Studio) -> None:
    began = time.monotonic()
    length = str(5 << 30)
    status, answer = answered(opened(studio, "/studio/datasets/set/archive", Content_Length=length))
    assert (status, answer["error"]["code"]) == (413, "BodyTooLarge")
    assert "4096 MiB" in answer["error"]["en"] and "studio.toml" in answer["error"]["zh"]
    assert time.monotonic() - began < 30
    assert left(studio) == []


@pytest.mark.parametrize("path", ["upload", "captions"])
def test_a_file_without_a_length_is_refused_once_it_is_too_long(studio: Studio, path: str) -> None:
    before = peak(studio)
    kind = "multipart/form-data; boundary=x"
    connection = opened(studio, f"/studio/datasets/set/{path}", Transfer_Encoding="chunked", Content_Type=kind)
    out = _Sent(connection)
    out.write(b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n')
    for _ in range(GIGABYTES):  # what comes after the limit of 100 MiB is read and thrown away
        out.write(BLOCK)
    connection.send(b"0\r\n\r\n")
    status, answer = answered(connection)
    assert (status, answer["error"]["code"]) == (413, "BodyTooLarge")
    assert peak(studio) - before < FLAT
    assert not any(path.stat().st_size > 1 << 20 for path in studio.workspace.rglob("*") if path.is_file())
