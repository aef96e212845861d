import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.families.discover import UnknownFamily, detect, discover, family_of, specs
from engine.weights.header import read_header
from tests.families.tiny import make_tiny_sd1
from tests.weights.files import empty_tensors


def test_families_are_the_modules_that_have_a_spec():
    assert "sd1" in discover()
    assert {"sd1"} <= {spec.name for spec in specs()}


def test_a_checkpoint_is_detected_without_torch(tmp_path: Path):
    path = make_tiny_sd1(tmp_path / "tiny.safetensors")
    code = (
        "import sys; from pathlib import Path; from engine.families.discover import detect, specs;"
        "from engine.weights.header import read_header; from engine.weights.identify import identify;"
        f"header = read_header(Path({str(path)!r})); found = detect(header); specs();"
        "print(found.family, found.factor, identify(header).kind, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["sd1", "4", "checkpoint", "False"]


@pytest.mark.parametrize("diffusers_keys", [False, True])
def test_sd1_is_detected_in_both_layouts(tmp_path: Path, diffusers_keys: bool):
    found = detect(read_header(make_tiny_sd1(tmp_path / "tiny.safetensors", diffusers_keys=diffusers_keys)))
    assert found is not None
    assert (found.family, found.layout) == ("sd1", "diffusers" if diffusers_keys else "ldm")
    assert (found.defaults.width, found.prediction, found.factor) == (64, "eps", 4)


@pytest.mark.parametrize(
    ("metadata", "prediction"),
    [({"modelspec.prediction_type": "v"}, "v"), ({"modelspec.prediction_type": "epsilon"}, "eps")],
)
def test_the_metadata_says_what_is_predicted(tmp_path: Path, metadata: dict[str, str], prediction: str):
    found = detect(read_header(make_tiny_sd1(tmp_path / "tiny.safetensors", metadata=metadata)))
    assert found is not None and found.prediction == prediction


def test_a_form_starts_with_what_the_file_says(tmp_path: Path):
    metadata = {"easel.defaults": '{"steps": 16, "cfg": 4}'}
    found = detect(read_header(make_tiny_sd1(tmp_path / "tiny.safetensors", metadata=metadata)))
    assert found is not None and (found.defaults.steps, found.defaults.cfg, found.defaults.height) == (16, 4, 64)


def test_a_checkpoint_of_another_family_is_refused_by_name(tmp_path: Path):
    names = {
        "model.diffusion_model.label_emb.0.0.weight": (1, 1),
        "model.diffusion_model.input_blocks.0.0.weight": (1, 4),
    }
    with pytest.raises(UnknownFamily, match="SDXL"):
        family_of(read_header(empty_tensors(tmp_path / "xl.safetensors", names)))


def test_nothing_of_torch_is_left_running() -> None:
    assert torch.get_default_device().type == "cpu", "skeletons are built on meta without changing anybody's default"
