"""What a pack changes for the whole process while it is imported: put back where that is safe, told where it is not."""

from __future__ import annotations

import builtins
import gc
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

# Functions that everything uses. Some packs replace one on purpose, and need it so: that is told, not undone.
_WATCHED: tuple[tuple[Any, str], ...] = (
    (torch, "load"),
    (torch, "compile"),
    (torch.Tensor, "to"),
    (torch.Tensor, "__getitem__"),
    (torch.nn.Module, "__call__"),
    (torch.nn.Module, "to"),
    (torch.nn.Module, "load_state_dict"),
    (torch.nn.functional, "scaled_dot_product_attention"),
    (torch.nn.functional, "interpolate"),
    (builtins, "print"),
    (builtins, "open"),
    (builtins, "__import__"),
    (json, "dumps"),
    (json, "loads"),
    (os, "_exit"),
    (sys, "exit"),
)


@contextmanager
def guarded() -> Iterator[Callable[[], list[str]]]:
    """Gives a function that says, after the block, what is now otherwise for everybody."""
    before = [getattr(owner, name) for owner, name in _WATCHED]
    folder, streams = _folder(), (sys.stdout, sys.stderr)
    kind, grad, collecting = torch.get_default_dtype(), torch.is_grad_enabled(), gc.isenabled()
    device, limit = torch.get_default_device(), sys.getrecursionlimit()
    drawn, drawn_by_torch = random.getstate(), torch.get_rng_state()
    try:
        yield lambda: [
            f"it replaced {getattr(owner, '__name__', owner)}.{name} for all that runs in the worker"
            for (owner, name), was in zip(_WATCHED, before, strict=True)
            if getattr(owner, name) is not was
        ]
    finally:
        with suppress(OSError):
            os.chdir(folder)
        sys.stdout, sys.stderr = streams
        torch.set_default_dtype(kind)
        torch.set_grad_enabled(grad)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        (gc.enable if collecting else gc.disable)()
        sys.setrecursionlimit(max(limit, sys.getrecursionlimit()))
        random.setstate(drawn)
        torch.set_rng_state(drawn_by_torch)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been deleted
        return "/"
