"""What a form starts with for distilled models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.families.discover import detect
from engine.weights.header import read_header
from tests.families.tiny_dit import SD35, make_flux_checkpoint, make_sd3_checkpoint
from tests.families.tiny_unets import SDXL, make_tiny


@pytest.mark.parametrize(
    ("name", "distilled", "steps", "cfg", "sampler_name"),
    [
        ("sd_xl_base_1.0", "", 25, 6.0, "dpmpp_2m"),
        ("sdxl_lightning_4step", "Lightning", 4, 1.0, "euler"),
        ("juggernautXL_v9Rdphoto2Lightning", "Lightning", 4, 1.0, "euler"),
        ("sdxl_lightning_8step_unet", "Lightning", 8, 1.0, "euler"),
        ("Hyper-SDXL-1step-Unet", "Hyper-SD", 1, 1.0, "euler"),
        ("hyperrealism_v20", "", 25, 6.0, "dpmpp_2m"),
        ("LCM_Dreamshaper_v7", "LCM", 6, 1.5, "lcm"),
        ("dreamshaperXL_v21TurboDPMSDE", "Turbo", 4, 1.0, "euler_ancestral"),
        ("sdxl_dmd2_4step", "DMD2", 4, 1.0, "lcm"),
        ("finetune_20000steps", "", 25, 6.0, "dpmpp_2m"),
        ("epoch_4steps", "", 25, 6.0, "dpmpp_2m"),
    ],
)
def test_names_say_it(tmp_path: Path, name: str, distilled: str, steps: int, cfg: float, sampler_name: str):
    found = detect(
        read_header(make_tiny(tmp_path / f"{name}.safetensors", SDXL, metadata={"modelspec.resolution": ""}))
    )
    assert found is not None and found.distilled == distilled
    assert (found.defaults.steps, found.defaults.cfg, found.defaults.sampler_name) == (steps, cfg, sampler_name)
    assert (found.defaults.width, found.defaults.height) == (1024, 1024)


def test_stabilitys_own_turbo_is_for_small_pictures(tmp_path: Path):
    found = detect(read_header(make_tiny(tmp_path / "sd_xl_turbo_1.0_fp16.safetensors", SDXL)))
    assert found is not None and (found.defaults.width, found.defaults.height, found.defaults.steps) == (512, 512, 4)


def test_a_title_says_it_and_stated_defaults_win(tmp_path: Path):
    titled = {"modelspec.title": "My Lightning"}
    found = detect(read_header(make_tiny(tmp_path / "a.safetensors", SDXL, metadata=titled)))
    assert found is not None and (found.distilled, found.defaults.steps) == ("Lightning", 4)
    stated = {**titled, "easel.defaults": json.dumps({"steps": 12})}
    found = detect(read_header(make_tiny(tmp_path / "a.safetensors", SDXL, metadata=stated)))
    assert found is not None and (found.distilled, found.defaults.steps, found.defaults.cfg) == ("", 12, 6.0)


def test_flows_keep_their_sampler(tmp_path: Path):
    found = detect(read_header(make_sd3_checkpoint(tmp_path / "sd3.5_large_turbo.safetensors", SD35)))
    assert found is not None and (found.defaults.steps, found.defaults.cfg) == (4, 1.0)
    assert found.defaults.sampler_name == "euler"
    found = detect(read_header(make_flux_checkpoint(tmp_path / "flux1-schnell-fp8.safetensors")))
    assert found is not None and (found.defaults.steps, found.defaults.scheduler) == (4, "simple")
