"""A MODEL link as packs see it: copies with functions of theirs in the guidance, the schedule, LoRAs.

What reaches into the layers of a network (attention and block patches, `model.model.diffusion_model`) is not there: the
networks here are diffusers', not the ones that such code knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.custom.links import missing, public
from engine.custom.links.sampling import ModelSampling, PackLatentFormat
from engine.families.base import Model, Prediction
from engine.families.parts.patch import Guidance, Patch
from engine.sampling.model import schedule_of

if TYPE_CHECKING:
    from engine.custom.surface.comfy.model_base import ModelType

Function = Callable[[dict[str, Any]], Any]
FLUX = "FLUX"
_TYPES: Mapping[Prediction, str] = {
    "eps": "EPS",
    "lcm": "EPS",
    "x0": "EPS",
    "v": "V_PREDICTION",
    "edm": "EDM",
    "flow": "FLOW",
    "img_to_img": "IMG_TO_IMG",
    "cosmos_rflow": "FLOW_COSMOS",
}  # ComfyUI's ModelType by name
_OBJECTS = "model_sampling, latent_format"


@dataclass(frozen=True)
class PackModel(Model):
    def clone(self, *_: Any, **__: Any) -> PackModel:
        return PackModel(**{item.name: getattr(self, item.name) for item in fields(self)})

    @property
    def model_options(self) -> dict[str, Any]:
        """To look at: {"transformer_options": {}}. Functions are set by the methods below."""
        return {"transformer_options": {}}

    @property
    def model(self) -> Inner:
        return Inner(self)

    @property
    def load_device(self) -> torch.device:
        from engine.custom.surface.comfy.model_management import get_torch_device

        return get_torch_device()

    @property
    def offload_device(self) -> torch.device:
        return torch.device("cpu")

    def get_model_object(self, name: str) -> Any:
        if name == "model_sampling":
            return ModelSampling(schedule_of(self), self.prediction)
        if name == "latent_format":
            return PackLatentFormat(self.latent)
        raise missing("A model's get_model_object", name, _OBJECTS)

    def add_object_patch(self, name: str, obj: Any) -> None:
        """A `model_sampling` of another model of the studio."""
        if name != "model_sampling" or not isinstance(obj, ModelSampling):
            raise missing("A model's add_object_patch", name, "model_sampling, taken from another model")
        object.__setattr__(self, "schedule", obj.schedule)
        object.__setattr__(self, "prediction", obj.prediction)

    def set_model_sampler_cfg_function(
        self, sampler_cfg_function: Function, disable_cfg1_optimization: bool = False
    ) -> None:
        """f({"cond", "uncond": what was predicted of the noise, "cond_denoised", ...}) -> the noise that counts."""

        def rule(guidance: Guidance) -> Tensor:
            told = _told(self, guidance)
            told |= {"cond": guidance.x - guidance.cond, "uncond": guidance.x - guidance.uncond}
            return guidance.x - sampler_cfg_function(told)

        self._add(Patch(_name(sampler_cfg_function), cfg=rule, both_sides=disable_cfg1_optimization))

    def set_model_sampler_post_cfg_function(
        self, post_cfg_function: Function, disable_cfg1_optimization: bool = False
    ) -> None:
        """f({"denoised", "cond_denoised", "uncond_denoised", ...}) -> denoised"""

        def finish(guidance: Guidance, denoised: Tensor) -> Tensor:
            told = _told(self, guidance)
            told |= {"denoised": denoised, "cond": guidance.cond, "uncond": guidance.uncond}
            return post_cfg_function(told)

        self._add(Patch(_name(post_cfg_function), post=finish, both_sides=disable_cfg1_optimization))

    def set_model_sampler_pre_cfg_function(
        self, pre_cfg_function: Function, disable_cfg1_optimization: bool = False
    ) -> None:
        """f({"conds_out": [denoised of the positive, of the negative], ...}) -> the same list, changed"""

        def prepare(guidance: Guidance) -> tuple[Tensor, Tensor]:
            told = _told(self, guidance) | {"conds_out": [guidance.cond, guidance.uncond]}
            cond, uncond = pre_cfg_function(told)
            return cond, uncond

        self._add(Patch(_name(pre_cfg_function), pre=prepare, both_sides=disable_cfg1_optimization))

    def model_size(self) -> int:
        from engine.custom.host import host

        models = host().models
        return models.nbytes(self.ref) if models else 0

    def is_clone(self, other: Any) -> bool:
        return isinstance(other, Model) and other.ref == self.ref

    def __getattr__(self, name: str) -> Any:
        raise missing("A MODEL link", name, public(PackModel))

    def _add(self, patch: Patch) -> None:
        object.__setattr__(self, "patches", (*self.patches, patch))


class Inner:
    """`model.model`."""

    def __init__(self, link: PackModel) -> None:
        self._link = link

    @property
    def model_sampling(self) -> ModelSampling:
        return self._link.get_model_object("model_sampling")

    @property
    def latent_format(self) -> PackLatentFormat:
        return self._link.get_model_object("latent_format")

    @property
    def model_type(self) -> ModelType:
        from engine.custom.surface.comfy.model_base import ModelType

        return ModelType[FLUX if self._link.family.spec.name == "flux" else _TYPES[self._link.prediction]]

    @property
    def model_config(self) -> _Config:
        return _Config(self._link.config)

    def process_latent_in(self, latent: Tensor) -> Tensor:
        return self._link.latent.scaled(latent)

    def process_latent_out(self, latent: Tensor) -> Tensor:
        return self._link.latent.unscaled(latent)

    def __getattr__(self, name: str) -> Any:
        raise missing("model.model", name, public(Inner))


class _Config:
    """`model.model.model_config`: diffusers' config of the network, to look at."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.unet_config = dict(config)


def _told(model: Model, guidance: Guidance) -> dict[str, Any]:
    """What every function of the guidance is told."""
    x, sigma = guidance.x, guidance.sigma
    sigmas = torch.full((x.shape[0],), sigma, device=x.device, dtype=x.dtype)
    options = {"sample_sigmas": torch.tensor([float(one) for one in guidance.sigmas]), "sigmas": sigmas}
    return {
        "cond_denoised": guidance.cond,
        "uncond_denoised": guidance.uncond,
        "cond_scale": guidance.cfg,
        "timestep": sigmas,
        "sigma": sigmas,
        "input": x,
        "model": Inner(model) if isinstance(model, PackModel) else model,
        "model_options": {"transformer_options": options},
    }


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))
