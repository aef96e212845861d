"""LoRAs of Flux.1: XLabs' names, BFL's for a control picture, and those of trainers that name diffusers' layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_xlabs_flux_lora_to_diffusers
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.families.base import Adapter, Model
from engine.families.flux import Flux
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.nodes.inpaint import instruct_pix_to_pix_conditioning
from engine.nodes.loaders import unet_loader, vae_loader
from engine.nodes.lora import lora_loader_model_only
from engine.nodes.sampling import ksampler
from engine.weights.header import read_header
from engine.weights.identify import identify
from engine.weights.lora import LoraOfOtherModel
from engine.workspace import Workspace
from tests.families.test_flux import predicted, text
from tests.families.tiny_dit import ae_tensors, in_file_layout, save, tiny_ae, tiny_flux
from tests.nodes.context import Context

WIDTH, RANK, STRENGTH = 64, 2, 0.7


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(open_device("cpu"))


@pytest.fixture
def model(tmp_path: Path, manager: ModelManager) -> Model:
    return Flux().load_denoiser(manager, save(in_file_layout(tiny_flux()), tmp_path / "flux.safetensors", None))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.2


def acted(manager: ModelManager, model: Model, path: Path) -> Tensor:
    file = Flux().read_lora(path, model, None)
    assert not file.unmatched
    return predicted(manager, model, adapters=(Adapter("a", "a", STRENGTH, file.entries["denoiser"]),))


def merged(pairs: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    """What a module of diffusers predicts whose weights hold the pairs (down, up)."""
    module: nn.Module = tiny_flux()
    for name, (down, up) in pairs.items():
        module.get_submodule(name).weight.data += STRENGTH * up @ down  # type: ignore[operator, union-attr]
    x = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return Flux().predict(module, x, torch.tensor([0.7]), text(guidance=torch.tensor([3.5])))


def test_loras_of_xlabs_act_as_diffusers_reads_them(tmp_path: Path, manager: ModelManager, model: Model):
    layers = {}
    for block in ("double_blocks.0", "double_blocks.1"):
        for stream in (1, 2):
            layers[f"{block}.processor.qkv_lora{stream}"] = (3 * WIDTH, WIDTH)
            layers[f"{block}.processor.proj_lora{stream}"] = (WIDTH, WIDTH)
    layers["single_blocks.1.processor.qkv_lora"] = (3 * WIDTH, WIDTH)
    layers["single_blocks.1.processor.proj_lora"] = (WIDTH, 5 * WIDTH)
    tensors = {}
    for seed, (name, (rows, columns)) in enumerate(layers.items()):
        tensors[f"{name}.down.weight"] = numbers(RANK, columns, seed=seed)
        tensors[f"{name}.up.weight"] = numbers(rows, RANK, seed=seed + 100)
    save_file(tensors, tmp_path / "lora.safetensors")
    assert (info := identify(read_header(tmp_path / "lora.safetensors"))).kind == "lora" and info.family == "flux"
    theirs = _convert_xlabs_flux_lora_to_diffusers(dict(tensors))
    names = {name.removeprefix("transformer.").rsplit(".lora_", 1)[0] for name in theirs}
    pairs = {n: (theirs[f"transformer.{n}.lora_A.weight"], theirs[f"transformer.{n}.lora_B.weight"]) for n in names}
    assert len(pairs) == 2 * (6 + 2) + 3 + 1
    torch.testing.assert_close(
        acted(manager, model, tmp_path / "lora.safetensors"), merged(pairs), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "down", "up", "dotted"),
    [
        ("transformer.{}", "lora_A.weight", "lora_B.weight", True),  # diffusers, peft
        ("base_model.model.{}", "lora_A.weight", "lora_B.weight", True),  # a model that peft wrapped
        ("{}", "lora_A.default.weight", "lora_B.default.weight", True),  # DiffSynth
        ("lora_transformer_{}", "lora_down.weight", "lora_up.weight", False),  # OneTrainer
        ("lycoris_{}", "lora_down.weight", "lora_up.weight", False),  # SimpleTuner
        ("lora_unet_{}", "lora_down.weight", "lora_up.weight", False),
        ("diffusion_model.{}", "lora_A.weight", "lora_B.weight", True),
    ],
)
def test_trainers_that_name_diffusers_layers(
    tmp_path: Path, manager: ModelManager, model: Model, name: str, down: str, up: str, dotted: bool
):
    pairs = {"transformer_blocks.0.attn.to_q": (numbers(RANK, 64), numbers(64, RANK, seed=1)),
             "transformer_blocks.1.ff_context.net.2": (numbers(RANK, 256, seed=2), numbers(64, RANK, seed=3)),
             "single_transformer_blocks.0.proj_mlp": (numbers(RANK, 64, seed=4), numbers(256, RANK, seed=5)),
             "norm_out.linear": (numbers(RANK, 64, seed=6), numbers(128, RANK, seed=7))}  # fmt: skip
    tensors = {}
    for module, (a, b) in pairs.items():
        base = name.format(module if dotted else module.replace(".", "_"))
        tensors |= {f"{base}.{down}": a, f"{base}.{up}": b}
    save_file(tensors, tmp_path / "lora.safetensors")
    torch.testing.assert_close(
        acted(manager, model, tmp_path / "lora.safetensors"), merged(pairs), rtol=1e-4, atol=1e-5
    )


def control_lora(plain: dict[str, Tensor]) -> dict[str, Tensor]:
    """As flux1-canny-dev-lora has it: every layer with a bias beside the pair, norms as a whole, the way in doubled."""
    tensors = {}
    for seed, (name, weight) in enumerate(plain.items()):
        base = name.removesuffix(".weight")
        if name.endswith("_norm.scale"):
            tensors[name] = 1 + numbers(*weight.shape, seed=seed)
        elif name.endswith(".weight"):
            columns = 2 * WIDTH if base == "img_in" else weight.shape[1]
            tensors[f"{base}.lora_A.weight"] = numbers(RANK, columns, seed=seed)
            tensors[f"{base}.lora_B.weight"] = numbers(weight.shape[0], RANK, seed=seed + 500)
            tensors[f"{base}.lora_B.bias"] = numbers(weight.shape[0], seed=seed + 900)
    return tensors


def with_control(plain: dict[str, Tensor], lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint that such a LoRA makes of a model."""
    made = dict(plain)
    made["img_in.weight"] = torch.nn.functional.pad(plain["img_in.weight"], (0, WIDTH))
    for name, tensor in lora.items():
        base = name.removesuffix(".lora_A.weight")
        if name.endswith("_norm.scale"):
            made[name] = tensor
        elif base != name:
            made[f"{base}.weight"] = made[f"{base}.weight"] + STRENGTH * lora[f"{base}.lora_B.weight"] @ tensor
            made[f"{base}.bias"] = plain[f"{base}.bias"] + STRENGTH * lora[f"{base}.lora_B.bias"]
    return made


def test_a_control_lora_makes_the_control_model_of_the_plain_one(tmp_path: Path):
    ctx = Context(Workspace(tmp_path).create())
    plain = in_file_layout(tiny_flux())
    lora = control_lora(plain)
    folder = ctx.workspace.models
    save(plain, folder / "diffusion_models" / "dev.safetensors", None)
    save(with_control(plain, lora), folder / "diffusion_models" / "canny.safetensors", None)
    save(lora, folder / "loras" / "canny-lora.safetensors", None)
    save(ae_tensors(tiny_ae()), folder / "vae" / "ae.safetensors", None)
    (vae,) = vae_loader(ctx, "ae.safetensors")
    dev, canny = (unet_loader(ctx, f"{name}.safetensors", "default")[0] for name in ("dev", "canny"))
    (controlled,) = lora_loader_model_only(ctx, dev, "canny-lora.safetensors", STRENGTH)
    assert not ctx.warnings and identify(read_header(folder / "loras" / "canny-lora.safetensors")).kind == "lora"
    prompt: Any = [[numbers(1, 7, 48), {"pooled_output": numbers(1, 24)}]]
    positive, _, latent = instruct_pix_to_pix_conditioning(ctx, prompt, prompt, vae, torch.rand(1, 12, 16, 3))

    def run(model: Model) -> Tensor:
        return ksampler(ctx, model, 5, 2, 1.0, "euler", "simple", positive, positive, latent, 1.0)[0]["samples"]

    torch.testing.assert_close(run(controlled), run(canny), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(run(dev), run(canny), atol=0.1)
    before = run(dev)
    assert lora_loader_model_only(ctx, dev, "canny-lora.safetensors", 0.0)[0] is dev and torch.equal(run(dev), before)


def test_no_other_layer_grows(tmp_path: Path, model: Model):
    base = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{base}.lora_A.weight": numbers(RANK, 2 * WIDTH), f"{base}.lora_B.weight": numbers(WIDTH, RANK)}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(LoraOfOtherModel, match="64 x 64"):
        Flux().read_lora(tmp_path / "lora.safetensors", model, None)
