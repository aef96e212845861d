"""The frames between server and worker."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy
import pytest

from engine.jobs import pipe
from engine.jobs.pipe import LONGEST_WAIT, Pipe


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


def test_small_messages_go_together_soon_and_keep_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "SOON", 5.0)
    a, b = pair()
    a.send_soon({"n": 0})  # after a pause: at once
    assert not a._waiting
    a._tokens = 0.0
    a.send_soon({"n": 1})
    a.send_soon({"n": 2})
    assert a._waiting
    a.send({"n": 3})
    a.send_soon({"n": 4})
    assert [b.receive()[0]["n"] for _ in range(5)] == [0, 1, 2, 3, 4]


def test_many_messages_do_not_wait_for_their_time() -> None:
    a, b = pair()
    a._tokens = 0.0
    sending = threading.Thread(target=a.send_soon, args=({"text": "x" * LONGEST_WAIT},))
    sending.start()
    assert len(b.receive()[0]["text"]) == LONGEST_WAIT
    sending.join()
    assert a._sender is None


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
