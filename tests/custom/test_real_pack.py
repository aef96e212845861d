"""A pack that nobody here wrote, from the package index (MIT), loads as it is and does its work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.custom.packs import load_packs
from tests.custom.conftest import Packs

pytestmark = pytest.mark.slow
DISTRIBUTION, FOLDER = "comfyui-ib-customnodes==0.2.3", "ComfyUI_Ib_CustomNodes"


def test_it_reads_a_picture_and_turns_it_into_pil_and_back(packs: Packs, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "10", "--no-deps", "--target"]
    done = subprocess.run([*command, str(tmp_path / "got"), DISTRIBUTION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "got" / FOLDER, tmp_path / "custom_nodes" / FOLDER)
    (pack,) = load_packs([tmp_path / "custom_nodes"], packs.host)
    assert (pack.error, pack.problems, pack.version) == ("", [], "0.2.3")
    assert pack.nodes == ["LoadImageFromPath", "PILToImage", "PILToMask", "ImageToPIL"]
    pixels = np.random.default_rng(1).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    picture = packs.workspace.input / "real.png"
    Image.fromarray(pixels).save(picture)
    prompt = {
        "1": {"class_type": "LoadImageFromPath", "inputs": {"image": "real.png [input]"}},
        "2": {"class_type": "ImageToPIL", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "PILToImage", "inputs": {"images": ["2", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "real"}},
    }
    outcome = packs.run(prompt)
    picture.unlink()  # the workspace is that of other tests too
    assert outcome.status == "success", outcome.error
    saved = packs.workspace.output / outcome.outputs["4"]["images"][0]["filename"]
    assert np.array_equal(np.asarray(Image.open(saved).convert("RGB")), pixels)
    prompt["1"]["inputs"]["image"] = "none.png"
    assert "Invalid image path" in str(packs.judge(prompt).to_json())
