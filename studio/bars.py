"""Progress on a terminal: one line that is written over, or a line now and then where there is no terminal."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any, TextIO

QUIET_SECONDS = 5.0


class Bar:
    """Shows the progress of one job as the store has it."""

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out = out
        self._shown = ""
        self._phase = ""
        self._last = 0.0

    def show(self, progress: dict[str, Any]) -> None:
        line = line_of(progress)
        if self._out.isatty():
            width = shutil.get_terminal_size().columns - 1
            self._out.write("\r" + line[:width].ljust(min(width, len(self._shown))))
            self._out.flush()
            self._shown = line[:width]
            return
        due = time.monotonic() - self._last >= QUIET_SECONDS or progress["phase"] != self._phase
        if line != self._shown and due:
            print(line, file=self._out, flush=True)
            self._shown, self._phase, self._last = line, progress["phase"], time.monotonic()

    def close(self) -> None:
        if self._out.isatty() and self._shown:
            self._out.write("\n")


def line_of(progress: dict[str, Any], cells: int = 24) -> str:
    """ "train  [######------]  12/40  loss 0.0812  1:05 left" """
    step, total = progress["step"], progress["total"]
    parts = [progress["phase"] or progress["text"] or "working"]
    if total:
        full = round(cells * min(1.0, step / total))
        parts.append(f"[{'#' * full}{'-' * (cells - full)}] {step}/{total}")
    if progress["phase"] and progress["text"]:
        parts.append(progress["text"])
    parts += [f"{name} {value:.4g}" for name, value in progress["metrics"].items()]
    if progress["eta"] is not None and total and step < total:
        parts.append(f"{duration(progress['eta'])} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """ "1:05" or "2:03:04" """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
