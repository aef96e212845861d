"""A tiny Stable Diffusion 1.x: its parts for diffusers' pipelines, and the graph that makes a picture with it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor

from engine.graph.builder import GraphBuilder
from tests.families.tiny import TEXT, UNET, make_tiny_sd1
from tests.pipelines.checkpoints import clip_of, enliven, tokenizer, unet_of, vae_of
from tests.pipelines.running import SEED, Studio, noise

FILE = "tiny.safetensors"
SCALE = 0.18215
BETAS: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
WIDTH, HEIGHT = 128, 96
SHAPE = (1, 4, HEIGHT // 8, WIDTH // 8)
PIPELINE: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def make_parts(studio: Studio, levels: int = 4) -> dict[str, Any]:
    """Writes the checkpoint and reads it with diffusers' code."""
    path = enliven(make_tiny_sd1(studio.path("checkpoints", FILE), vae_levels=levels))
    return {
        "vae": vae_of(path, levels),
        "text_encoder": clip_of(path, "cond_stage_model.transformer.", TEXT),
        "tokenizer": tokenizer(studio.workspace.root / "tokenizer"),
        "unet": unet_of(path, UNET),
    }


def euler(**changes: Any) -> EulerDiscreteScheduler:
    """Timesteps from the first to the last of training, both included: the scheduler "normal"."""
    return EulerDiscreteScheduler(**{"timestep_spacing": "linspace", **BETAS, **changes})


def pure(scheduler: Any, shape: tuple[int, ...] = SHAPE, seed: int = SEED) -> Tensor:
    """The noise to give to a pipeline, which multiplies it by its sigma: sqrt(1 + sigma^2) of a run that starts in pure
    noise is a convention, in which we follow ComfyUI."""
    sigma = torch.as_tensor(scheduler.init_noise_sigma).double()
    return (noise(*shape, seed=seed).double() * (1 + sigma**2).sqrt() / sigma).float()


def latent_of(pipe: Any, prompt: Any, **settings: Any) -> Tensor:
    """In the VAE's scale, as ours."""
    pipe.set_progress_bar_config(disable=True)
    usual = {"num_inference_steps": 4, "guidance_scale": 5.0, "output_type": "latent"}
    return pipe(prompt, **(usual | settings)).images / pipe.vae.config.scaling_factor


class Picture:
    """A graph with a checkpoint's three parts, two prompts and whatever a test adds."""

    def __init__(self, file: str = FILE) -> None:
        self.graph = GraphBuilder("")
        loader = self.graph.node("CheckpointLoaderSimple", ckpt_name=file)
        self.model, self.clip, self.vae = (loader.out(i) for i in range(3))

    def add(self, class_type: str, **inputs: Any) -> list[Any]:
        """A node; its first output."""
        return self.graph.node(class_type, **inputs).out(0)

    def text(self, text: str) -> list[Any]:
        return self.add("CLIPTextEncode", clip=self.clip, text=text)

    def empty(self, width: int = WIDTH, height: int = HEIGHT, batch: int = 1) -> list[Any]:
        return self.add("EmptyLatentImage", width=width, height=height, batch_size=batch)

    def sample(self, positive: list[Any], negative: list[Any], latent: list[Any], **settings: Any) -> list[Any]:
        usual = {"seed": SEED, "steps": 4, "cfg": 5.0, "denoise": 1.0, "sampler_name": "euler", "scheduler": "normal"}
        inputs = {"model": self.model, "positive": positive, "negative": negative, "latent_image": latent}
        return self.add("KSampler", **inputs, **(usual | settings))

    def latent(self, studio: Studio, link: list[Any]) -> Tensor:
        return studio.latent(self.graph, link)
