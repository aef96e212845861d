"""Packs that misbehave: what they do is told, and nothing else suffers."""

from __future__ import annotations

import ast
import logging
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.custom.host import NodeExited
from engine.custom.packs import Pack, load_packs
from tests.custom.conftest import Packs

NODE = """
class {name}:
    @classmethod
    def INPUT_TYPES(cls): return {{"required": {{}}}}
    RETURN_TYPES = ("INT",); FUNCTION = "run"; CATEGORY = "hostile"; OUTPUT_NODE = True
    def run(self): {body}
NODE_CLASS_MAPPINGS = {{"{name}": {name}}}
"""


def load(packs: Packs, root: Path, **sources: str) -> dict[str, Pack]:
    for name, source in sources.items():
        folder = root / name
        folder.mkdir()
        (folder / "__init__.py").write_text(source)
    return {pack.name: pack for pack in load_packs([root], packs.host)}


def test_names_are_only_names(packs: Packs, tmp_path: Path) -> None:
    names = ["<img src=x onerror=alert(1)>", "a.b", "a-b", "a_b", "nodes", "torch", "x" * 200, 'it\'s "quoted"']
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.py").write_text(f"NUMBER = {number}")
        body = f"from .part import NUMBER; assert NUMBER == {number}; return (NUMBER,)"
        (tmp_path / name / "__init__.py").write_text(NODE.format(name=f"Named{number}", body=body))
    (tmp_path / "a.b.py").write_text(NODE.format(name="Named99", body="return (99,)"))
    found = load_packs([tmp_path], packs.host)
    assert {pack.name for pack in found} == {*names, "a.b_"}
    assert all(pack.nodes and not pack.error for pack in found), [pack.error for pack in found]
    for number in range(len(names)):  # each has its own files, also those that are imported late
        outcome = packs.run({"1": {"class_type": f"Named{number}", "inputs": {}}})
        assert outcome.status == "success", outcome.error
    assert sys.modules["torch"] is torch


def test_a_pack_that_takes_long_to_load_is_named_in_the_log(
    packs: Packs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the warning itself, so that no clock decides."""
    heard = threading.Event()
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            heard.set()

    monkeypatch.setattr("engine.custom.packs.SLOW_SECONDS", 0.01)
    monkeypatch.setattr("builtins.wait_until_heard", lambda: heard.wait(60), raising=False)
    listener = Listener(logging.WARNING)
    logging.getLogger("engine.custom.packs").addHandler(listener)
    try:
        found = load(packs, tmp_path, slow_pack="assert wait_until_heard(); NODE_CLASS_MAPPINGS = {}")
    finally:
        logging.getLogger("engine.custom.packs").removeHandler(listener)
    assert not found["slow_pack"].error
    assert "the pack slow_pack has been loading" in told[0] and "slow_pack.disabled" in told[0]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names there are text")
def test_a_name_that_is_no_text_is_told_in_ascii(packs: Packs, tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/bad\xff")
    (tmp_path / os.fsdecode(b"bad\xff") / "__init__.py").write_text(NODE.format(name="BadName", body="return (1,)"))
    (pack,) = load_packs([tmp_path], packs.host)
    assert pack.name == "'bad\\udcff'" and pack.nodes == ["BadName"]


@pytest.mark.parametrize("how", ["raise SystemExit(3)", "raise KeyboardInterrupt", "def f(): f()\nf()", "syntax error"])
@pytest.mark.parametrize("file", ["__init__.py", "prestartup_script.py"])
def test_whatever_it_raises_costs_only_the_pack(packs: Packs, tmp_path: Path, how: str, file: str) -> None:
    for name in ("a_bad", "b_good"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(NODE.format(name=f"{name}_node", body="return (1,)"))
    (tmp_path / "a_bad" / file).write_text(how)
    bad, good = load_packs([tmp_path], packs.host)
    assert bad.error and not bad.nodes and good.nodes == ["b_good_node"] and not good.error
    del packs.host.classes["b_good_node"]
    del packs.host.registry._types["b_good_node"]


def test_what_it_changes_for_everybody_is_put_back_or_told(packs: Packs, tmp_path: Path) -> None:
    was, folder, out = torch.load, os.getcwd(), sys.stdout
    random.seed(1)
    torch.manual_seed(1)
    drawn = random.getstate(), torch.get_rng_state()
    source = """
import os, sys, random, torch, threading, gc
os.chdir("/"); sys.stdout = None; random.seed(7); torch.manual_seed(7); gc.disable()
torch.set_default_dtype(torch.float16); torch.set_grad_enabled(False); torch.set_default_device("meta")
torch.load = lambda *a, **k: None
NODE_CLASS_MAPPINGS = {}
"""
    try:
        pack = load(packs, tmp_path, changes=source)["changes"]
        assert pack.problems == ["it replaced torch.load for all that runs in the worker"] and not pack.error
    finally:
        torch.load = was
    assert (os.getcwd(), sys.stdout) == (folder, out)
    assert torch.empty(1).dtype == torch.float32 and torch.empty(1).device.type == "cpu" and torch.is_grad_enabled()
    assert random.getstate() == drawn[0] and torch.equal(torch.get_rng_state(), drawn[1])


def test_threads_and_garbage_do_no_harm(packs: Packs, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = """
import os, threading, time
os.write(1, bytes(range(256)) * 10); os.write(2, b"\\xff\\xfe"); print("\\ud800".encode("utf-8", "replace"))
stop = threading.Event()
for _ in range(8): threading.Thread(target=stop.wait, daemon=True).start()
def fail(): raise ValueError("in a thread")
NODE_CLASS_MAPPINGS = {}
"""
    before = threading.active_count()
    pack = load(packs, tmp_path, noisy=source)["noisy"]
    assert not pack.error and threading.active_count() == before + 8
    sys.modules["custom_nodes.noisy"].stop.set()
    capfd.readouterr()


def test_a_node_that_exits_fails_its_prompt_and_says_so(packs: Packs, tmp_path: Path) -> None:
    load(packs, tmp_path, leaving=NODE.format(name="Leaves", body="import sys; sys.exit(5)"))
    outcome = packs.run({"1": {"class_type": "Leaves", "inputs": {}}})
    assert outcome.status == "error" and isinstance(outcome.error.__cause__, NodeExited)  # type: ignore[union-attr]
    assert "sys.exit(5)" in str(outcome.error)


KILLED = """
import sys, logging
from pathlib import Path
from engine.custom.host import Host
from engine.custom.packs import load_packs
from engine.graph.registry import Registry
from engine.workspace import Workspace
logging.disable()
packs = load_packs([Path(sys.argv[1])], Host(Workspace(Path(sys.argv[2])).create(), None, Registry()))
print([(pack.name, pack.error.strip().splitlines()[-1:]) for pack in packs])
"""


@pytest.mark.slow
@pytest.mark.parametrize("file", ["__init__.py", "prestartup_script.py"])
def test_a_pack_that_ends_the_worker_is_not_tried_for_ever(packs: Packs, tmp_path: Path, file: str) -> None:
    root, space = tmp_path / "custom_nodes", tmp_path / "space"
    for name in ("a_good", "killer", "z_good"):
        (root / name).mkdir(parents=True)
        for one in ("__init__.py", "prestartup_script.py"):
            (root / name / one).write_text("NODE_CLASS_MAPPINGS = {}")
    (root / "killer" / file).write_text("import os; os._exit(9)")

    def start() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(root), str(space)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert [start().returncode for _ in range(2)] == [9, 9]
    for _ in range(2):  # and so it stays
        (good, killer, last) = ast.literal_eval(start().stdout)
        assert (good, last) == (("a_good", []), ("z_good", []))
        assert "it ended the worker process when it was loaded, twice" in killer[1][0]
    (root / "killer" / file).write_text("NODE_CLASS_MAPPINGS = {}")  # its owner has mended it
    os.utime(root / "killer" / file, (1, 1))
    assert ast.literal_eval(start().stdout) == [("a_good", []), ("killer", []), ("z_good", [])]


def test_a_folder_of_packs_among_packs_is_named(packs: Packs, tmp_path: Path) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "inner" / "__init__.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (pack,) = load_packs([tmp_path], packs.host)
    assert "Are its folders inner the packs?" in pack.error


def test_the_version_is_that_of_its_pyproject(packs: Packs, tmp_path: Path) -> None:
    for name, text in (("good", '[project]\nversion = "1.2.3"'), ("odd", "[project]\nversion = 5"), ("bad", "= =")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}")
        (tmp_path / name / "pyproject.toml").write_text(text)
    found = load_packs([tmp_path], packs.host)
    versions: dict[str, Any] = {pack.name: (pack.version, pack.error) for pack in found}
    assert versions == {"good": ("1.2.3", ""), "odd": ("", ""), "bad": ("", "")}
