"""The frames between server and worker."""

from __future__ import annotations

import os
from pathlib import Path

import numpy
import pytest

from engine.jobs.pipe import Pipe


def pair() -> tuple[Pipe, Pipe]:
    (read_a, write_a), (read_b, write_b) = os.pipe(), os.pipe()
    return (
        Pipe(os.fdopen(read_a, "rb"), os.fdopen(write_b, "wb")),
        Pipe(os.fdopen(read_b, "rb"), os.fdopen(write_a, "wb")),
    )


def test_messages_and_blobs_arrive_as_sent() -> None:
    a, b = pair()
    a.send({"t": "preview", "text": "图片"}, b"\x00\xff" * 10)
    a.send({"t": "empty"})
    assert b.receive() == ({"t": "preview", "text": "图片"}, b"\x00\xff" * 10)
    assert b.receive() == ({"t": "empty"}, b"")


def test_sending_into_a_closed_pipe_is_an_os_error() -> None:
    a, b = pair()
    a.close_writer()
    with pytest.raises(OSError):
        a.send({"t": "late"})
    with pytest.raises(EOFError):
        b.receive()


def test_paths_and_numpy_scalars_become_plain() -> None:
    a, b = pair()
    a.send({"path": Path("a") / "b", "loss": numpy.float32(0.5)})
    assert b.receive()[0] == {"path": str(Path("a") / "b"), "loss": 0.5}


def test_what_is_not_json_is_refused_and_the_pipe_stays_usable() -> None:
    a, b = pair()
    with pytest.raises(TypeError):
        a.send({"model": object()})
    a.send({"t": "after"})
    assert b.receive()[0] == {"t": "after"}
