"""ControlNets on Stable Diffusion 1.x against diffusers' pipeline: one and two, and a part of the run only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.pipelines.controlnet.pipeline_controlnet import StableDiffusionControlNetPipeline
from safetensors.torch import load_file

from tests.families.tiny import UNET
from tests.families.tiny_control import make_tiny_control
from tests.pipelines.checkpoints import load
from tests.pipelines.running import CLOSE, Studio, apart
from tests.pipelines.sd1 import HEIGHT, PIPELINE, WIDTH, Picture, euler, latent_of, pure

HINT = (8, 8, 8, 16)  # 8 pixels a cell


def net(studio: Studio, number: int) -> ControlNetModel:
    path = studio.path("controlnet", f"{number}.safetensors")
    make_tiny_control(path, seed=number, dtype=torch.float32, hint=HINT)
    half = {name: value for name, value in UNET.items() if name not in ("up_block_types", "out_channels")}
    module = ControlNetModel(**half, conditioning_embedding_out_channels=HINT)
    return load(module, convert_controlnet_checkpoint(load_file(path), dict(module.config)))


@pytest.mark.parametrize(
    "uses",
    [
        [(1, 1.0, 0.0, 1.0)],
        [(1, 0.7, 0.2, 0.5)],
        [(1, 0.7, 0.0, 0.5), (2, 0.4, 0.25, 1.0)],
    ],
)
def test_control_nets(studio: Studio, parts: dict[str, Any], uses: list[tuple[int, float, float, float]]):
    """(net, strength, start, end). diffusers counts steps that begin and end within, we as ComfyUI timesteps: 999, 666,
    333 and 0 here. Both mean the same steps by these numbers."""
    image, nets, picture = studio.picture("hint.png", WIDTH, HEIGHT), [], Picture()
    hint = picture.add("LoadImage", image="hint.png")
    sides = picture.text("a red cat"), picture.text("a dog")
    for number, strength, start, end in uses:
        nets.append(net(studio, number))
        control = picture.add("ControlNetLoader", control_net_name=f"{number}.safetensors")
        under = picture.graph.node("ControlNetApplyAdvanced", positive=sides[0], negative=sides[1], control_net=control,
                                   image=hint, strength=strength, start_percent=start, end_percent=end)  # fmt: skip
        sides = under.out(0), under.out(1)
    ours = picture.latent(studio, picture.sample(*sides, picture.empty()))
    pipe = StableDiffusionControlNetPipeline(scheduler=euler(), controlnet=nets, **parts, **PIPELINE)
    weights: dict[str, Any] = {
        "controlnet_conditioning_scale": [strength for _, strength, _, _ in uses],
        "control_guidance_start": [start for _, _, start, _ in uses],
        "control_guidance_end": [end for _, _, _, end in uses],
    }
    theirs = latent_of(pipe, "a red cat", image=[image] * len(uses), negative_prompt="a dog",
                       latents=pure(euler()), **weights)  # fmt: skip
    assert apart(ours, theirs) <= CLOSE
    plain = picture.sample(picture.text("a red cat"), picture.text("a dog"), picture.empty())
    assert apart(picture.latent(studio, plain), theirs) > 100 * CLOSE
