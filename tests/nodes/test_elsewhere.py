"""Runs on a device that is not the CPU: no tensor is made on the wrong one or in the wrong type, and the numbers are
the CPU's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import engine.nodes
from engine.families.base import Components, Model
from engine.graph.registry import NodeType, Registry
from engine.models.device import open_device
from engine.models.manager import ModelManager
from engine.nodes import conditioning_where as where
from engine.nodes import controlnet, hooks, inpaint
from engine.nodes.conditioning import clip_text_encode
from engine.nodes.edit_models import reference_latent
from engine.nodes.guidance import differential_diffusion
from engine.nodes.loaders import checkpoint_loader_simple, unet_loader, vae_loader
from engine.nodes.lora import lora_loader_model_only
from engine.nodes.sampling import ksampler
from engine.nodes.unet_patches import patch_model_add_downscale
from engine.nodes.vae import vae_decode, vae_decode_tiled, vae_encode
from engine.sampling.names import SAMPLERS, SCHEDULERS
from engine.workspace import Workspace
from tests.elsewhere import Elsewhere, placing_away, strict
from tests.families import tiny_unets
from tests.families.test_t2i import FULL, saved, tencent, tiny_adapter
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_control import make_tiny_control
from tests.families.tiny_control_dit import stability_tensors, tiny_flux_control, tiny_stability
from tests.families.tiny_dit import ae_tensors, in_file_layout, make_flux_checkpoint, save, tiny_ae, tiny_sd3
from tests.nodes.context import Context

pytestmark = pytest.mark.slow
Prompt = list[list[Any]]
QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("studio")).create()
    folder = made.models
    make_tiny_sd1(folder / "checkpoints" / "sd1.safetensors")
    tiny_unets.make_tiny(folder / "checkpoints" / "inpaint.safetensors", replace(tiny_unets.SD2, channels=9))
    tiny_unets.make_tiny(folder / "checkpoints" / "refined.safetensors", tiny_unets.SDXL)
    make_flux_checkpoint(folder / "checkpoints" / "flux.safetensors")
    save(in_file_layout(tiny_sd3()), folder / "diffusion_models" / "sd3.safetensors")
    save(ae_tensors(tiny_ae()), folder / "vae" / "ae.safetensors")
    make_tiny_control(folder / "controlnet" / "edges.safetensors")
    saved(tencent(tiny_adapter(FULL)), folder / "controlnet" / "adapter.safetensors")
    save(tiny_flux_control(num_mode=4).state_dict(), folder / "controlnet" / "union.safetensors")
    save(stability_tensors(tiny_stability()), folder / "controlnet" / "depth.safetensors")
    generator = torch.Generator().manual_seed(2)
    pair = {f"{QUERY}.lora_down.weight": torch.randn(2, 16, generator=generator),
            f"{QUERY}.lora_up.weight": torch.randn(16, 2, generator=generator)}  # fmt: skip
    save_file(pair, folder / "loras" / "pair.safetensors")
    save_file({**pair, f"{QUERY}.dora_scale": torch.rand(16, 1)}, folder / "loras" / "dora.safetensors")
    return made


@dataclass(frozen=True)
class Homes:
    """One studio with its models on the CPU, on a device, and on one where they run in half types as on CUDA."""

    here: Context
    there: Context
    half: Context


@pytest.fixture(scope="module")
def homes(workspace: Workspace) -> Iterator[Homes]:
    with pytest.MonkeyPatch.context() as patch:
        devices = open_device("cpu"), placing_away(patch), placing_away(patch, "cuda")
        yield Homes(*(Context(workspace, models=ModelManager(device)) for device in devices))


def alike(homes: Homes, work: Callable[[Context], Tensor]) -> None:
    """The same everywhere, but for what half types leave out."""
    here = work(homes.here)
    for home, tolerance in ((homes.there, 1e-3), (homes.half, 0.2)):
        with strict():
            there = work(home)
        assert not isinstance(there, Elsewhere), "what nodes hand on is on the host"
        assert float((there - here).norm() / here.norm()) < tolerance


def parts(ctx: Context, name: str = "sd1") -> Components:
    model, clip, vae = checkpoint_loader_simple(ctx, f"{name}.safetensors")
    return Components(model, clip, vae, name, name)


def prompts(ctx: Context, found: Components) -> tuple[Prompt, Prompt]:
    positive, negative = (clip_text_encode(ctx, text, found.clip)[0] for text in ("a (red:1.3) cat", "blue"))
    return positive, negative


def run(
    ctx: Context,
    model: Model,
    sides: tuple[Prompt, Prompt],
    sampler: str = "euler",
    scheduler: str = "normal",
    channels: int = 4,
    steps: int = 2,
    mask: Tensor | None = None,
    batch: int = 1,
) -> Tensor:
    latent = {"samples": torch.zeros(batch, channels, 8, 8)} | ({} if mask is None else {"noise_mask": mask})
    if mask is not None:
        latent["samples"] = torch.rand(batch, channels, 8, 8, generator=torch.Generator().manual_seed(7))
    return ksampler(ctx, model, 1, steps, 4.0, sampler, scheduler, *sides, latent, 1.0)[0]["samples"]


def picture(side: int = 64) -> Tensor:
    return torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if not name.endswith("_gpu")])
def test_samplers(homes: Homes, sampler: str):
    def work(ctx: Context) -> Tensor:
        found = parts(ctx)
        return run(ctx, found.model, prompts(ctx, found), sampler, steps=3)

    alike(homes, work)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(homes: Homes, scheduler: str):
    def work(ctx: Context) -> Tensor:
        found = parts(ctx)
        return run(ctx, found.model, prompts(ctx, found), "euler", scheduler)

    alike(homes, work)


def patches() -> list[NodeType]:
    """Every node from a model to a model whose other inputs have defaults or choices of their own."""
    registry = Registry()
    engine.nodes.load_all(registry)

    def plain(node: NodeType) -> bool:
        rest = [one for name, one in node.inputs.items() if name != "model" and not one.optional]
        return all(one.declared.default is not None or isinstance(one.declared.type, (list, tuple)) for one in rest)

    of_models = [node for node in registry if [out.type for out in node.outputs] == ["MODEL"]]
    return [node for node in of_models if "model" in node.inputs and plain(node)]


@pytest.mark.parametrize("node", [pytest.param(node, id=node.name) for node in patches()])
def test_patches_of_models(homes: Homes, node: NodeType):
    given = {"layers": "0", "double_layers": "0", "single_layers": "0", "scale": 2.0, "scale_factor": 1.5}
    values: dict[str, Any] = {}
    for name, one in node.inputs.items():
        if name != "model" and not one.optional:
            choices = one.declared.type
            values[name] = one.declared.default if isinstance(choices, str) else next(iter(choices))
    values |= {name: given[name] for name in values.keys() & given.keys()}
    values |= {"start_percent": 0.0, "end_percent": 1.0} if "start_percent" in values else {}

    def work(ctx: Context) -> Tensor:
        found = parts(ctx, "flux" if node.name.startswith("SkipLayer") else "sd1")
        (model,) = node.call(ctx, model=found.model, **values)
        return run(ctx, model, prompts(ctx, found), channels=model.latent.channels, batch=2)

    alike(homes, work)


def test_deep_shrink_by_turned_vectors(homes: Homes):
    def work(ctx: Context) -> Tensor:
        found = parts(ctx)
        (model,) = patch_model_add_downscale(ctx, found.model, 1, 2.0, 0.0, 1.0, True, "bislerp", "bislerp")
        return run(ctx, model, prompts(ctx, found))

    alike(homes, work)


def test_prompts_for_a_part_of_the_picture_or_the_way(homes: Homes):
    def work(ctx: Context) -> Tensor:
        found = parts(ctx)
        positive, negative = prompts(ctx, found)
        (area,) = where.conditioning_set_area(ctx, positive, 64, 64, 32, 32, 0.8)
        half = torch.zeros(1, 32, 32)
        half[:, :16] = 1.0
        (masked,) = where.conditioning_set_mask(ctx, positive, half, 0.7, "mask bounds")
        (late,) = where.conditioning_set_timestep_range(ctx, positive, 0.3, 1.0)
        (whole,) = where.conditioning_set_default_combine(ctx, [*area, *masked, *late], negative)
        return run(ctx, found.model, (whole, negative))

    alike(homes, work)


def test_a_noise_mask_and_one_that_changes(homes: Homes):
    mask = torch.linspace(0, 1, 32)[None, None].expand(1, 32, 32)

    def work(ctx: Context) -> Tensor:
        found = parts(ctx)
        (changing,) = differential_diffusion(ctx, found.model)
        made = [run(ctx, model, prompts(ctx, found), name, mask=mask)
                for model in (found.model, changing) for name in ("euler", "uni_pc", "dpmpp_2m_sde")]  # fmt: skip
        return torch.cat(made)

    alike(homes, work)


@pytest.mark.parametrize("name", ["inpaint", "refined"])
def test_models_that_are_told_more(homes: Homes, name: str):
    """Picture and mask beside the latent; SDXL the sizes, with two text encoders."""

    def work(ctx: Context) -> Tensor:
        found = parts(ctx, name)
        positive, negative = prompts(ctx, found)
        if name == "inpaint":
            mask = torch.zeros(1, 64, 64)
            mask[:, :, 32:] = 1.0
            positive, negative, latent = inpaint.inpaint_model_conditioning(
                ctx, positive, negative, found.vae, picture(), mask, True
            )
            return ksampler(ctx, found.model, 1, 2, 4.0, "euler", "normal", positive, negative, latent, 1.0)[0][
                "samples"
            ]
        return run(ctx, found.model, (positive, negative))

    alike(homes, work)


@pytest.mark.parametrize("name", ["edges", "adapter"])
def test_control_of_stable_diffusion(homes: Homes, name: str):
    def work(ctx: Context) -> Tensor:
        found = parts(ctx)
        (net,) = controlnet.control_net_loader(ctx, f"{name}.safetensors")
        sides = controlnet.control_net_apply_advanced(ctx, *prompts(ctx, found), net, picture(), 0.8, 0.0, 1.0)
        return run(ctx, found.model, sides)

    alike(homes, work)


def test_flux_with_a_union_and_a_reference(homes: Homes):
    def work(ctx: Context) -> Tensor:
        found = parts(ctx, "flux")
        (net,) = controlnet.control_net_loader(ctx, "union.safetensors")
        (net,) = controlnet.set_union_control_net_type(ctx, net, "depth")
        positive, negative = prompts(ctx, found)
        reference = {"samples": vae_encode(ctx, picture(16), found.vae)[0]["samples"]}
        sides = controlnet.control_net_apply_advanced(
            ctx, reference_latent(ctx, positive, reference)[0], negative, net, picture(), 0.8, 0.0, 1.0, found.vae
        )
        return run(ctx, found.model, sides, scheduler="simple", channels=16)

    alike(homes, work)


def test_sd3_with_a_net_of_stability(homes: Homes):
    generator = torch.Generator().manual_seed(1)
    cross, pooled = torch.randn(1, 7, 48, generator=generator), torch.randn(1, 64, generator=generator)
    prompt: Prompt = [[cross, {"pooled_output": pooled}]]

    def work(ctx: Context) -> Tensor:
        (model,) = unet_loader(ctx, "sd3.safetensors", "default")
        (vae,) = vae_loader(ctx, "ae.safetensors")
        (net,) = controlnet.control_net_loader(ctx, "depth.safetensors")
        sides = controlnet.control_net_apply_advanced(ctx, prompt, prompt, net, picture(), 0.8, 0.0, 1.0, vae)
        return run(ctx, model, sides, scheduler="simple", channels=16)

    alike(homes, work)


@pytest.mark.parametrize("name", ["pair", "dora"])
def test_adapters_and_hooks(homes: Homes, name: str):
    def work(ctx: Context) -> Tensor:
        found = parts(ctx)
        (model,) = lora_loader_model_only(ctx, found.model, f"{name}.safetensors", 0.7)
        (group,) = hooks.create_hook_lora_model_only(ctx, f"{name}.safetensors", 0.5)
        positive, negative = prompts(ctx, found)
        hooked = where.with_hooks(positive, group)
        return torch.cat([run(ctx, model, (positive, negative)), run(ctx, found.model, (hooked, negative))])

    alike(homes, work)


def test_autoencoders_whole_and_in_tiles(homes: Homes):
    def work(ctx: Context) -> Tensor:
        found = parts(ctx)
        (latent,) = vae_encode(ctx, picture(), found.vae)
        (whole,), (tiled,) = vae_decode(ctx, latent, found.vae), vae_decode_tiled(ctx, latent, found.vae, 64, 16, 64, 8)
        return torch.cat([whole, tiled])

    alike(homes, work)
