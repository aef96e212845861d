"""Samplers and schedulers against diffusers' schedulers in its text-to-image pipeline, Stable Diffusion 1.x.

Steps are chosen so that timesteps are whole numbers: between two, diffusers interpolates sigma and we its logarithm.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from engine.sampling.samplers.uni_pc import LAST_SIGMA
from tests.pipelines.running import CLOSE, SEED, Studio, apart, noise
from tests.pipelines.sd1 import BETAS, HEIGHT, PIPELINE, SHAPE, WIDTH, Picture, euler, latent_of, pure

SIZE = {"height": HEIGHT, "width": WIDTH}
MULTI: dict[str, Any] = {**BETAS, "timestep_spacing": "linspace", "final_sigmas_type": "zero"}


def ours(studio: Studio, **settings: Any) -> Tensor:
    picture = Picture()
    sampled = picture.sample(picture.text("a red cat"), picture.text("a blue dog"), picture.empty(), **settings)
    return picture.latent(studio, sampled)


def theirs(parts: dict[str, Any], scheduler: Any, given: Tensor, steps: int = 4, **settings: Any) -> Tensor:
    pipe = StableDiffusionPipeline(scheduler=scheduler, **parts, **PIPELINE)
    usual = {"negative_prompt": "a blue dog", "latents": given, "num_inference_steps": steps, **SIZE}
    return latent_of(pipe, "a red cat", **(usual | settings))


class _Whole(EulerDiscreteScheduler):
    """Tells the model the timestep that was trained nearest to a sigma, as we do; diffusers tells one in between."""

    def set_timesteps(self, *args: Any, **settings: Any) -> None:
        super().set_timesteps(*args, **settings)
        self.timesteps = self.timesteps.round()


class _AlmostZero(UniPCMultistepScheduler):
    """Ends where our UniPC does: its update divides by the last sigma, which diffusers leaves out instead."""

    def set_timesteps(self, *args: Any, **settings: Any) -> None:
        super().set_timesteps(*args, **settings)
        self.sigmas[-1] = LAST_SIGMA


@pytest.mark.parametrize(
    ("scheduler", "changes"),
    [
        ("normal", {}),
        ("karras", {"use_karras_sigmas": True}),
        ("exponential", {"use_exponential_sigmas": True}),
    ],
)
def test_euler(studio: Studio, parts: dict[str, Any], scheduler: str, changes: dict[str, Any]):
    whole = _Whole(**BETAS, timestep_spacing="linspace", **changes)
    assert apart(ours(studio, scheduler=scheduler), theirs(parts, whole, pure(euler()))) <= CLOSE


def test_another_prompt_is_far_from_it(studio: Studio, parts: dict[str, Any]):
    """So that being close says something."""
    assert apart(ours(studio), theirs(parts, euler(), pure(euler()), negative_prompt="a red dog")) > 100 * CLOSE


def test_euler_ancestral(studio: Studio, parts: dict[str, Any]):
    scheduler = EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    made = ours(studio, sampler_name="euler_ancestral")
    assert apart(made, theirs(parts, scheduler, pure(euler()), generator=seeded())) <= CLOSE


def test_heun(studio: Studio, parts: dict[str, Any]):
    scheduler = HeunDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    assert apart(ours(studio, sampler_name="heun"), theirs(parts, scheduler, pure(euler()))) <= CLOSE


def test_lms(studio: Studio, parts: dict[str, Any]):
    scheduler = LMSDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    assert apart(ours(studio, sampler_name="lms", steps=10), theirs(parts, scheduler, pure(euler()), 10)) <= CLOSE


@pytest.mark.parametrize("scheduler", ["sgm_uniform", "karras"])
def test_dpmpp_2m(studio: Studio, parts: dict[str, Any], scheduler: str):
    multi = DPMSolverMultistepScheduler(**MULTI, use_karras_sigmas=scheduler == "karras")
    made = ours(studio, sampler_name="dpmpp_2m", scheduler=scheduler, steps=9)
    assert apart(made, theirs(parts, multi, noise(*SHAPE), 9)) <= CLOSE


@pytest.mark.parametrize(("sampler_name", "solver_type"), [("uni_pc", "bh1"), ("uni_pc_bh2", "bh2")])
def test_uni_pc(studio: Studio, parts: dict[str, Any], sampler_name: str, solver_type: str):
    scheduler = _AlmostZero(**MULTI, solver_order=3, solver_type=solver_type)
    made = ours(studio, sampler_name=sampler_name, steps=9)
    assert apart(made, theirs(parts, scheduler, noise(*SHAPE), 9)) <= CLOSE


def test_ddim(studio: Studio, parts: dict[str, Any]):
    """Starts at timestep 751, where something of the (empty) latent is left."""
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading")
    made = ours(studio, sampler_name="ddim", scheduler="ddim_uniform")
    given = noise(*SHAPE) * (1 - scheduler.alphas_cumprod[751]).sqrt()
    assert apart(made, theirs(parts, scheduler, given)) <= CLOSE


def test_ddpm(studio: Studio, parts: dict[str, Any]):
    plain = {name: value for name, value in BETAS.items() if name != "steps_offset"}
    scheduler = DDPMScheduler(**plain, clip_sample=False, timestep_spacing="linspace")
    made = ours(studio, sampler_name="ddpm")
    assert apart(made, theirs(parts, scheduler, noise(*SHAPE), generator=seeded())) <= CLOSE


def test_lcm(studio: Studio, parts: dict[str, Any]):
    """With the model sampling of LCM: 50 of 1000 timesteps, and the boundary condition in what it estimates."""
    plain = {name: value for name, value in BETAS.items() if name != "steps_offset"}
    picture = Picture()
    picture.model = picture.add("ModelSamplingDiscrete", model=picture.model, sampling="lcm", zsnr=False)
    texts = picture.text("a red cat"), picture.text("a blue dog")
    made = picture.latent(studio, picture.sample(*texts, picture.empty(), sampler_name="lcm", scheduler="simple"))
    given = theirs(parts, LCMScheduler(**plain), noise(*SHAPE), generator=seeded())
    assert apart(made, given) <= CLOSE


def seeded() -> torch.Generator:
    """Whose draws are those of a run: what is added on the way begins with the first noise again."""
    return torch.Generator().manual_seed(SEED)
