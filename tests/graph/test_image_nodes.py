"""Picture and mask nodes against pictures that the reference system made of the same prompts; files and errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.errors import DiskFull, EaselError
from engine.graph.cache import NoCache
from engine.graph.context import RunContext
from engine.graph.executor import Executor, Outcome
from engine.graph.metadata import read_metadata
from engine.graph.registry import Registry
from engine.nodes import canny, effects, image, latent, mask, primitives
from engine.workspace import Workspace

DATA = Path(__file__).parent / "data" / "image_ops"
CASES = sorted(path.parent.name for path in DATA.glob("*/api.json"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path).create()


def run(prompt: dict[str, Any], workspace: Workspace, outputs: list[str] | None = None) -> Outcome:
    registry = Registry()
    for module in (canny, effects, image, latent, mask, primitives):
        registry.add_module(module)
    outputs = outputs or [n for n, v in prompt.items() if registry[v["class_type"]].declaration.output_node]
    context = RunContext("id", workspace, None, prompt)  # type: ignore[arg-type]
    return Executor(registry, NoCache(), torch.no_grad).run(prompt, context, outputs, lambda event, data: None)


def made(outcome: Outcome, workspace: Workspace, node_id: str) -> list[Path]:
    if outcome.error:
        raise outcome.error
    return [workspace.output / row["subfolder"] / row["filename"] for row in outcome.outputs[node_id]["images"]]


@pytest.mark.parametrize("case", CASES)
def test_a_picture_is_the_reference_systems(case, workspace):
    for path in (DATA / "inputs").iterdir():
        shutil.copy(path, workspace.input)
    prompt = json.loads((DATA / case / "api.json").read_text())
    outcome = run(prompt, workspace)
    expected = sorted((DATA / case).glob("*.png"))
    assert expected
    for path in expected:
        node_id, number = path.stem.removeprefix("node").split("_")
        with Image.open(path) as theirs, Image.open(made(outcome, workspace, node_id)[int(number)]) as ours:
            assert theirs.size == ours.size
            assert np.abs(np.asarray(theirs).astype(int) - np.asarray(ours).astype(int)).max() <= 1


def test_all_recorded_cases_are_there():
    assert len(CASES) == 17


def test_a_latent_is_saved_and_loaded_as_it_was(workspace):
    prompt = {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 40, "batch_size": 3}},
        "2": {"class_type": "LatentFromBatch", "inputs": {"samples": ["1", 0], "batch_index": 1, "length": 9}},
        "3": {"class_type": "SaveLatent", "inputs": {"samples": ["2", 0], "filename_prefix": "latents/x"}},
    }
    outcome = run(prompt, workspace)
    (row,) = outcome.outputs["3"]["latents"]
    assert row == {"filename": "x_00001_.latent", "subfolder": "latents", "type": "output"}
    path = workspace.output / "latents" / "x_00001_.latent"
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"latent_tensor", "latent_format_version_0"}
        assert tuple(file.get_tensor("latent_tensor").shape) == (2, 4, 5, 8)
        assert json.loads(file.metadata()["prompt"]) == prompt
    (loaded,) = latent.load_latent(_context(workspace), "latents/x_00001_.latent [output]")
    assert torch.equal(loaded["samples"], torch.zeros(2, 4, 5, 8))


def test_old_latents_are_scaled_and_other_files_refused(workspace):
    from safetensors.torch import save_file

    save_file({"latent_tensor": torch.ones(1, 4, 2, 2)}, workspace.input / "old.latent")
    (loaded,) = latent.load_latent(_context(workspace), "old.latent")
    assert loaded["samples"][0, 0, 0, 0].item() == pytest.approx(1 / 0.18215)
    (workspace.input / "text.latent").write_text("hello")
    save_file({"other": torch.ones(1)}, workspace.input / "other.latent")
    for name in ("text.latent", "other.latent"):
        with pytest.raises(latent.NotALatent, match=name):
            latent.load_latent(_context(workspace), name)


def test_empty_latents_have_an_eighth_of_the_size_cut():
    (made_,) = latent.empty_latent_image(_context(), 71, 64, 2)
    assert made_["samples"].shape == (2, 4, 8, 8)


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [(0, 0, (16, 8)), (128, 0, (32, 16)), (0, 128, (16, 8)), (16, 16, (8, 8)), (100, 90, (11, 12))],
)
def test_a_side_of_zero_follows_from_the_other(width, height, shape):
    samples = {"samples": torch.rand(1, 4, 16, 8), "noise_mask": "kept"}
    (scaled,) = latent.latent_upscale(_context(), samples, "bilinear", width, height, "disabled")
    assert scaled["noise_mask"] == "kept"
    assert scaled["samples"].shape[-2:] == shape


def test_bislerp_keeps_length_and_ends():
    samples = torch.nn.functional.normalize(torch.randn(1, 4, 6, 5), dim=1)
    (scaled,) = latent.latent_upscale_by(_context(), {"samples": samples}, "bislerp", 2.0)
    assert scaled["samples"].shape == (1, 4, 12, 10)
    assert torch.allclose(scaled["samples"].norm(dim=1), torch.ones(1, 12, 10), atol=1e-4)
    (same,) = latent.latent_upscale_by(_context(), {"samples": samples}, "bislerp", 1.0)
    assert torch.allclose(same["samples"], samples, atol=1e-5)


def test_parts_and_repeats_of_a_batch_keep_their_places():
    whole = {"samples": torch.arange(3.0).reshape(3, 1, 1, 1), "noise_mask": torch.arange(3.0).reshape(3, 1, 1, 1)}
    (part,) = latent.latent_from_batch(_context(), whole, 1, 2)
    assert part["batch_index"] == [1, 2]
    assert part["noise_mask"].flatten().tolist() == [1.0, 2.0]
    (twice,) = latent.repeat_latent_batch(_context(), part, 2)
    assert twice["batch_index"] == [1, 2, 3, 4]
    assert twice["samples"].flatten().tolist() == [1.0, 2.0, 1.0, 2.0]


def test_values_that_are_no_numbers_are_not_saved_as_black(workspace):
    with pytest.raises(image.NotFinite, match="NaN"):
        image.save_image(_context(workspace), torch.full((1, 4, 4, 3), float("nan")), "x")
    with pytest.raises(image.NotFinite, match="latent"):
        latent.save_latent(_context(workspace), {"samples": torch.full((1, 4, 1, 1), float("inf"))}, "x")
    assert list(workspace.output.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(workspace, monkeypatch):
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image, "save_picture", full)
    with pytest.raises(DiskFull, match="disk is full"):
        image.save_image(_context(workspace), torch.zeros(1, 4, 4, 3), "x")
    assert list(workspace.output.iterdir()) == []


def test_a_picture_that_goes_missing_is_an_error_of_its_node(workspace):
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "gone.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    outcome = run(prompt, workspace)
    assert isinstance(outcome.error, EaselError)
    assert "gone.png" in str(outcome.error)


def test_a_changed_file_is_loaded_again(workspace):
    path = workspace.input / "a.png"
    Image.new("RGB", (4, 4), "red").save(path)
    first = image._content(_context(workspace), "a.png")
    Image.new("RGB", (4, 4), "blue").save(path)
    assert image._content(_context(workspace), "a.png") != first


def test_a_picture_is_loaded_with_its_mask_or_a_small_empty_one(workspace):
    Image.new("RGB", (4, 2), "red").save(workspace.input / "a.png")
    Image.new("RGBA", (4, 2), (255, 0, 0, 0)).save(workspace.input / "b.png")
    pixels, empty = image.load_image(_context(workspace), "a.png")
    assert (tuple(pixels.shape), tuple(empty.shape), float(empty.sum())) == ((1, 2, 4, 3), (1, 64, 64), 0.0)
    assert torch.equal(image.load_image(_context(workspace), "b.png")[1], torch.ones(1, 2, 4))
    assert torch.equal(image.load_image_mask(_context(workspace), "b.png", "alpha")[0], torch.ones(1, 2, 4))
    assert torch.equal(image.load_image_mask(_context(workspace), "b.png", "red")[0], torch.ones(1, 2, 4))


def test_names_in_any_script_are_saved_and_read(workspace):
    Image.new("RGB", (4, 2), "red").save(workspace.input / "狐狸 🦊.png")
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "狐狸 🦊.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "出 力/狐 🦊"}},
    }
    (path,) = made(run(prompt, workspace), workspace, "2")
    assert path.name == "狐 🦊_00001_.png"
    assert read_metadata(path).prompt == prompt


def _context(workspace: Workspace | None = None) -> Any:
    from engine.graph.builder import GraphBuilder

    class Context:
        node_id, job_id, draft = "1", "id", False
        prompt: dict[str, Any] = {}  # noqa: RUF012
        extra_pnginfo: dict[str, Any] = {}  # noqa: RUF012
        graph = GraphBuilder("1.0.0.")

        def interrupt_check(self) -> None: ...

    context = Context()
    context.workspace = workspace  # type: ignore[attr-defined]
    return context
