"""Flags of `studio serve`: what they say reaches the workspace, the worker and whoever asks over HTTP."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.errors import InvalidSetting
from engine.workspace import Workspace
from studio.cli import main
from studio.kinds import job_kinds
from studio.server import asgi_app, open_app, worker_environment
from studio.settings import StudioSettings
from tests.studio.conftest import PATIENCE, Served, running
from tests.studio.test_prompt import ended

PACKS = Path(__file__).parents[1] / "custom" / "packs"
PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "blue"}},
}


@pytest.fixture
def served_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`studio serve` with these flags, up to the point where it would listen: (workspace, settings)."""

    def serve(*flags: str) -> tuple[Workspace, StudioSettings]:
        taken: list[tuple[Workspace, StudioSettings]] = []

        def stand_in(workspace: Workspace, settings: StudioSettings, kinds: object) -> int:
            taken.append((workspace, settings))
            return 0

        monkeypatch.setattr("studio.server.serve", stand_in)
        assert main(["serve", *flags]) == 0
        return taken[0]

    return serve


@pytest.mark.parametrize("strategy", ["none", "classic", "lru:7", "ram", "ram:2.5"])
def test_the_cache_that_is_asked_for_reaches_the_worker(served_with: Any, tmp_path: Path, strategy: str) -> None:
    _, settings = served_with("--workspace", str(tmp_path), "--cache", strategy)
    assert worker_environment(settings)["EASEL_CACHE"] == strategy


@pytest.mark.parametrize("strategy", ["lru", "lru:0", "lru:-1", "ram:", "most", ""])
def test_a_cache_that_is_none_of_ours_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    assert main(["serve", "--workspace", str(tmp_path), "--cache", strategy]) == 2
    told = capsys.readouterr().err
    assert f"'{strategy}'" in told and "cache" in told
    with pytest.raises(InvalidSetting):
        from studio.settings import load_settings

        load_settings(Workspace(tmp_path), cache=strategy)


def test_without_flags_all_lies_in_the_workspace_and_no_pack_runs(served_with: Any, tmp_path: Path) -> None:
    workspace, settings = served_with("--workspace", str(tmp_path))
    assert workspace == Workspace(tmp_path.resolve()) and workspace.output == tmp_path / "output"
    assert worker_environment(settings)["EASEL_CUSTOM_NODES"] == ""


@pytest.mark.slow
def test_a_studio_with_every_flag_does_as_they_say(served_with: Any, tmp_path: Path) -> None:
    comfy = tmp_path / "ComfyUI"
    (comfy / "models" / "loras").mkdir(parents=True)
    (comfy / "models" / "loras" / "of comfy.safetensors").touch()
    (comfy / "custom_nodes").mkdir()
    shutil.copy(PACKS / "one_file.py", comfy / "custom_nodes")
    paths = tmp_path / "extra_model_paths.yaml"
    paths.write_text(
        "comfyui:\n  base_path: ComfyUI\n  is_default: true\n  loras: |\n    models/loras\n    models/none\n"
        "  custom_nodes: custom_nodes\n"
    )
    flags = ["--output", str(tmp_path / "pictures"), "--extra-model-paths", str(paths), "--cache", "lru:3"]
    workspace, settings = served_with(
        "--workspace", str(tmp_path / "space"), *flags, "--custom-nodes", "--device", "cpu"
    )
    app = open_app(workspace, settings, job_kinds(), lambda _: None)
    app.supervisor.start()
    try:
        assert app.supervisor.wait_ready(4 * PATIENCE)
        with running(asgi_app(app, with_page=False)) as port, Served(app, port, []).client() as client:
            _does_as_they_say(client, tmp_path)
    finally:
        app.supervisor.stop()
        app.jobs.close()


def _does_as_they_say(client: httpx.Client, tmp_path: Path) -> None:
    from PIL import Image

    made = client.post("/prompt", json={"prompt": PICTURE}).json()["prompt_id"]
    (image,) = ended(client, made)["outputs"]["2"]["images"]
    file = tmp_path / "pictures" / image["filename"]
    assert file.is_file() and not list((tmp_path / "space").glob("output/*"))
    shown = client.get("/view", params=image)
    assert Image.open(io.BytesIO(shown.content)).convert("RGB").getpixel((0, 0)) == (0, 0, 255)
    info = client.get("/object_info").json()
    assert info["LoraLoader"]["input"]["required"]["lora_name"][0] == ["of comfy.safetensors"]
    assert "Twice" in info and client.get("/models/loras").json() == ["of comfy.safetensors"]
    assert client.get("/studio/caches").json()["finals"]["strategy"] == "LruCache"
