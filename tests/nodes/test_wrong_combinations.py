"""What is of one model family and meets a model of another: an error that names both and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import EaselError
from engine.families.base import Model
from engine.families.controls.base import ControlOfOtherModel, NotAControlNet
from engine.families.discover import discover
from engine.families.parts.concat import PictureOfOtherModel
from engine.families.parts.diffusion import NoPooledText
from engine.nodes import controlnet
from engine.nodes.edit_models import reference_latent
from engine.nodes.loaders import checkpoint_loader_simple, unet_loader
from engine.nodes.lora import lora_loader_model_only
from engine.nodes.sampling import ksampler
from engine.sampling.prompts import PromptOfOtherModel
from engine.sampling.run import WrongChannels
from engine.weights.lora import LoraOfOtherModel
from engine.workspace import Workspace
from tests.families import tiny_unets
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_control import make_tiny_control
from tests.families.tiny_control_dit import tiny_flux_control
from tests.families.tiny_dit import in_file_layout, save, tiny_flux, tiny_sd3
from tests.nodes.context import Context

FAMILIES = ("sd1", "sdxl", "flux", "sd3")
WIDTHS = {"sd1": (32, 32), "sdxl": (48, 32), "flux": (48, 24), "sd3": (48, 64)}  # of the tiny models
CHANNELS = {"sd1": 4, "sdxl": 4, "flux": 16, "sd3": 16}
TITLES = {name: discover()[name].SPEC.title for name in FAMILIES}
Prompt = list[list[Any]]


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Context:
    workspace = Workspace(tmp_path_factory.mktemp("studio")).create()
    folder = workspace.models
    make_tiny_sd1(folder / "checkpoints" / "sd1.safetensors")
    tiny_unets.make_tiny(folder / "checkpoints" / "sdxl.safetensors", tiny_unets.SDXL)
    save(in_file_layout(tiny_flux()), folder / "diffusion_models" / "flux.safetensors")
    save(in_file_layout(tiny_flux(in_channels=128)), folder / "diffusion_models" / "fluxcontrol.safetensors")
    save(in_file_layout(tiny_sd3()), folder / "diffusion_models" / "sd3.safetensors")
    make_tiny_control(folder / "controlnet" / "sd1.safetensors")
    save(tiny_flux_control().state_dict(), folder / "controlnet" / "flux.safetensors")
    for name, module in (
        ("sd1", "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"),
        ("flux", "lora_unet_double_blocks_0_img_attn_qkv"),
        ("sd3", "lora_unet_joint_blocks_0_x_block_attn_qkv"),
    ):
        pair = {f"{module}.lora_down.weight": torch.ones(2, 768), f"{module}.lora_up.weight": torch.ones(8, 2)}
        save_file(pair, folder / "loras" / f"{name}.safetensors")
    return Context(workspace)


def model_of(ctx: Context, name: str) -> Model:
    if (ctx.workspace.models / "checkpoints" / f"{name}.safetensors").exists():
        return checkpoint_loader_simple(ctx, f"{name}.safetensors")[0]
    return unet_loader(ctx, f"{name}.safetensors", "default")[0]


def prompt(cross: int, pooled: int | None = None) -> Prompt:
    return [[torch.zeros(1, 7, cross), {} if pooled is None else {"pooled_output": torch.zeros(1, pooled)}]]


def run(ctx: Context, name: str, positive: Prompt, latent: Tensor | None = None) -> Tensor:
    samples = torch.zeros(1, CHANNELS.get(name, 16), 8, 8) if latent is None else latent
    return ksampler(
        ctx, model_of(ctx, name), 1, 1, 1.0, "euler", "simple", positive, positive, {"samples": samples}, 1.0
    )[0]["samples"]  # fmt: skip


def refused(kind: type[EaselError], work: Callable[[], Any], *words: str) -> None:
    """By an error that has all of the words in both languages."""
    with pytest.raises(kind) as caught:
        work()
    for language in ("en", "zh"):
        missing = [word for word in words if word not in caught.value.text(language)]
        assert not missing, (missing, caught.value.text(language))
    assert any("一" <= letter <= "鿿" for letter in caught.value.text("zh"))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("other", FAMILIES)
def test_prompts_are_for_models_that_read_text_of_their_widths(ctx: Context, name: str, other: str):
    reads_pooled = name != "sd1"
    fits = WIDTHS[name][0] == WIDTHS[other][0] and (not reads_pooled or WIDTHS[name][1] == WIDTHS[other][1])
    if fits:
        assert torch.isfinite(run(ctx, name, prompt(*WIDTHS[other]))).all()
    else:
        words = (f"{name} ", TITLES[name], f"{WIDTHS[name][0]} / ", f"{WIDTHS[other][0]} / {WIDTHS[other][1]}", "CLIP")
        refused(PromptOfOtherModel, lambda: run(ctx, name, prompt(*WIDTHS[other])), *words)


@pytest.mark.parametrize("other", FAMILIES)
def test_prompts_of_real_widths_name_the_family_that_they_are_of(ctx: Context, other: str):
    widths = discover()[other].SPEC.text_widths
    name = "sdxl" if other == "sd1" else "sd1"
    refused(PromptOfOtherModel, lambda: run(ctx, name, prompt(*widths)), TITLES[name], TITLES[other])


def test_models_are_not_loaded_for_prompts_that_they_cannot_read(ctx: Context):
    fresh = Context(ctx.workspace)
    refused(PromptOfOtherModel, lambda: run(fresh, "sd3", prompt(768, 768)), TITLES["sd3"])
    assert {model["state"] for model in fresh.models.snapshot()["models"]} == {"file"}


def test_a_pooled_text_may_be_missing_where_the_model_does_without(ctx: Context):
    assert torch.isfinite(run(ctx, "sd1", prompt(32))).all()
    refused(NoPooledText, lambda: run(ctx, "sdxl", prompt(48)), "SDXL", "CLIP")


@pytest.mark.parametrize(("name", "channels"), [("flux", 4), ("sd3", 4), ("sd1", 16), ("sdxl", 16)])
def test_latents_are_for_models_of_their_channels(ctx: Context, name: str, channels: int):
    """An empty one is made to fit, as in ComfyUI."""
    latent = torch.ones(1, channels, 8, 8)
    words = (TITLES[name], f"{channels} ", f"{CHANNELS[name]}", "VAE")
    refused(WrongChannels, lambda: run(ctx, name, prompt(*WIDTHS[name]), latent), *words)
    assert run(ctx, name, prompt(*WIDTHS[name]), torch.zeros(1, channels, 8, 8)).shape == (1, CHANNELS[name], 8, 8)


def test_pictures_beside_the_prompt_are_of_the_models_channels(ctx: Context):
    four = {"samples": torch.ones(1, 4, 8, 8)}
    (referring,) = reference_latent(ctx, prompt(*WIDTHS["flux"]), four)
    refused(PictureOfOtherModel, lambda: run(ctx, "flux", referring), TITLES["flux"], "16", "4", "VAE")
    shown = [[cross, {**options, "concat_latent_image": four["samples"]}] for cross, options in prompt(48, 24)]
    refused(PictureOfOtherModel, lambda: run(ctx, "fluxcontrol", shown), TITLES["flux"], "16", "4", "VAE")
    assert torch.isfinite(run(ctx, "flux", shown)).all(), "a plain model does not look at it"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("other", ["sd1", "flux", "sd3"])
def test_loras_name_their_family_the_models_and_the_file(ctx: Context, name: str, other: str):
    if name == other:
        return
    words = (f"{other}.safetensors", TITLES[other], TITLES[name], "LoRA")
    refused(LoraOfOtherModel, lambda: lora_loader_model_only(ctx, model_of(ctx, name), words[0], 1.0), *words)


@pytest.mark.parametrize(("name", "other"), [("sdxl", "sd1"), ("flux", "sd1"), ("sd1", "flux"), ("sd3", "flux")])
def test_control_nets_name_their_family_and_the_models(ctx: Context, name: str, other: str):
    (net,) = controlnet.control_net_loader(ctx, f"{other}.safetensors")
    positive, image = prompt(*WIDTHS[name]), torch.rand(1, 16, 16, 3)
    controlled = controlnet.control_net_apply(ctx, positive, net, image, 1.0)[0]
    refused(ControlOfOtherModel, lambda: run(ctx, name, controlled), net.title, TITLES[other], TITLES[name])


def test_what_is_no_control_net_is_named_with_what_would_be_one(ctx: Context):
    folder = ctx.workspace.models
    (folder / "controlnet" / "lora.safetensors").symlink_to(Path("../loras/flux.safetensors"))
    words = ("lora.safetensors", TITLES["flux"], "ControlNet", TITLES["sdxl"])
    refused(NotAControlNet, lambda: controlnet.control_net_loader(ctx, "lora.safetensors"), *words)
