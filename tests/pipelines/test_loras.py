"""LoRAs of kohya's, peft's and diffusers' names, and DoRA, against diffusers' load_lora_weights."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.pipelines.running import CLOSE, Studio, apart
from tests.pipelines.sd1 import HEIGHT, PIPELINE, WIDTH, Picture, euler, latent_of, pure

SIZE = {"height": HEIGHT, "width": WIDTH}
RANK, ALPHA = 4, 2.0


def pairs(module: nn.Module, *endings: str, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """{layer: (down, up)} of a module's layers with such names."""
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in module.named_modules():
        if not name.endswith(endings) or not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        rows, columns, *kernel = layer.weight.shape
        down = torch.randn(RANK, columns, *kernel, generator=generator) / layer.weight[0].numel() ** 0.5
        up = torch.randn(rows, RANK, *[1] * len(kernel), generator=generator) * 0.5
        made[name] = down, up
    assert made
    return made


UNET = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv1", "ff.net.2")
TEXT = ("q_proj", "v_proj", "fc1")


def files(parts: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The same LoRA in the names of kohya's scripts, of peft and of old diffusers; the last two have no alpha."""
    made: dict[str, dict[str, Tensor]] = {"kohya": {}, "peft": {}, "diffusers": {}}
    sides = ("unet", "lora_unet_", "unet.", UNET), (
        "text_encoder", "lora_te_text_model_", "text_encoder.text_model.", TEXT
    )  # fmt: skip
    for part, flat, dotted, names in sides:
        for name, (down, up) in pairs(parts[part], *names).items():
            key = flat + name.replace(".", "_")
            made["kohya"] |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            made["kohya"][f"{key}.alpha"] = torch.tensor(ALPHA)
            key = dotted + name
            made["peft"] |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
            made["diffusers"] |= {f"{key}.lora.down.weight": down, f"{key}.lora.up.weight": up}
    return made


def under_lora(parts: dict[str, Any], path: Path, strength: float, alpha: float) -> StableDiffusionPipeline:
    """The UNet's half by diffusers. Of the text encoder's it finds nothing, since transformers 5 has other names for
    its layers: that one is merged."""
    copies = {name: deepcopy(part) if isinstance(part, nn.Module) else part for name, part in parts.items()}
    pipe = StableDiffusionPipeline(scheduler=euler(), **copies, **PIPELINE)
    tensors = {name: t for name, t in load_file(path).items() if not name.startswith(("lora_te", "text_encoder"))}
    pipe.load_lora_weights(tensors, adapter_name="one")
    pipe.set_adapters("one", strength)
    with torch.no_grad():
        for name, (down, up) in pairs(parts["text_encoder"], *TEXT).items():
            copies["text_encoder"].get_submodule(name).weight += strength * alpha / RANK * up @ down
    return pipe


def with_lora(studio: Studio, path: Path, strength: float) -> Tensor:
    picture = Picture()
    loader = picture.graph.node("LoraLoader", model=picture.model, clip=picture.clip, lora_name=path.name,
                                strength_model=strength, strength_clip=strength)  # fmt: skip
    picture.model, picture.clip = loader.out(0), loader.out(1)
    return picture.latent(studio, picture.sample(picture.text("a red cat"), picture.text("a dog"), picture.empty()))


def made_by(pipe: StableDiffusionPipeline) -> Tensor:
    return latent_of(pipe, "a red cat", negative_prompt="a dog", latents=pure(euler()), **SIZE)


@pytest.mark.parametrize(("dialect", "alpha"), [("kohya", ALPHA), ("peft", RANK), ("diffusers", RANK)])
@pytest.mark.parametrize("strength", [0.7, -0.4])
def test_a_lora(studio: Studio, parts: dict[str, Any], dialect: str, alpha: float, strength: float):
    path = studio.path("loras", f"{dialect}.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in files(parts)[dialect].items()}, path)
    theirs = made_by(under_lora(parts, path, strength, alpha))
    assert apart(made_by(StableDiffusionPipeline(scheduler=euler(), **parts, **PIPELINE)), theirs) > 1000 * CLOSE
    assert apart(with_lora(studio, path, strength), theirs) <= CLOSE


def test_dora(studio: Studio, parts: dict[str, Any]):
    """Of linear layers and convolutions, against peft's; diffusers' reader of kohya's files leaves the lengths out."""
    unet, tensors = deepcopy(parts["unet"]), {}
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(UNET), use_dora=True), unet)
    for name, (down, up) in pairs(parts["unet"], *UNET).items():
        layer, weight = unet.get_submodule(name), parts["unet"].get_submodule(name).weight
        lengths = 1.2 * weight.detach().flatten(1).norm(dim=1)
        with torch.no_grad():
            layer.lora_A.default.weight.copy_(down)
            layer.lora_B.default.weight.copy_(up)
            magnitude = layer.lora_magnitude_vector.default.weight
            magnitude.copy_(lengths.view(magnitude.shape))
        tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
        tensors[f"unet.{name}.dora_scale"] = lengths.view(-1, *[1] * (weight.ndim - 1))
    path = studio.path("loras", "dora.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    theirs = made_by(StableDiffusionPipeline(scheduler=euler(), **{**parts, "unet": unet}, **PIPELINE))
    assert apart(made_by(StableDiffusionPipeline(scheduler=euler(), **parts, **PIPELINE)), theirs) > 1000 * CLOSE
    assert apart(with_lora(studio, path, 1.0), theirs) <= CLOSE
