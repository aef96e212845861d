"""SDXL models that were trained in continuous time (EDM, https://arxiv.org/abs/2206.00364). Tensors in their files mark
them: `edm_mean` and `edm_std` Playground 2.5, which predicts as EDM does on latents of its own scale;
`edm_vpred.sigma_max` CosXL, which predicts v. Torch-free until a model is made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.errors import FileError
from engine.families.base import Model, Prediction
from engine.weights.header import Header

if TYPE_CHECKING:
    from torch import Tensor

# The latents that Playground 2.5 was trained on: each channel of SDXL's normalised, then halved.
PLAYGROUND: dict[str, Any] = {
    "scale": 0.5,
    "means": (-1.6574, 1.886, -1.383, 2.5155),
    "deviations": (8.4927, 5.9022, 6.5498, 5.2299),
}
PLAYGROUND_SIGMAS, COSXL_SIGMAS = (0.002, 80.0), (0.002, 120.0)
LATENT_CONCAT = "latent_concat"  # in Model.options: a picture beside the latent is in the denoiser's scale


class ContinuousTime(FileError):
    en = "{title} was trained in continuous time (EDM), which training does not know. Train on SDXL's base instead."
    zh = "{title} 以连续时间（EDM）训练，此处的训练不支持。请改用 SDXL 基础模型训练。"


def edm_prediction(header: Header) -> Prediction | None:
    """What such a model predicts; None for any other."""
    if "edm_mean" in header and "edm_std" in header:
        return "edm"
    return "v" if "edm_vpred.sigma_max" in header else None


def as_trained(model: Model, header: Header) -> Model:
    """The model with the schedule, and the latents, of such a file; any other as it is."""
    prediction = edm_prediction(header)
    if prediction is None:
        return model
    from engine.families.parts.schedule import ContinuousSchedule

    if prediction == "edm":
        latent = replace(model.latent, **PLAYGROUND)
        return replace(model, schedule=ContinuousSchedule.between(*PLAYGROUND_SIGMAS), latent=latent)
    low, high = (_number(header, f"edm_vpred.{name}", usual) for name, usual in zip(_ENDS, COSXL_SIGMAS, strict=True))
    options = {**model.options, LATENT_CONCAT: True}
    return replace(model, schedule=ContinuousSchedule.between(low, high), options=options)


def marks_of(model: Model) -> dict[str, Tensor]:
    """The tensors by which a file says that its model is such a one, for `as_trained` to read; none for others."""
    from engine.families.parts.schedule import ContinuousSchedule

    schedule = model.schedule
    if not isinstance(schedule, ContinuousSchedule) or schedule.time != "edm":
        return {}
    import torch

    if model.prediction == "edm" and model.latent.means:
        return {"edm_mean": torch.tensor(model.latent.means), "edm_std": torch.tensor(model.latent.deviations)}
    if model.prediction != "v":
        return {}
    ends = zip(_ENDS, (schedule.sigma_min, schedule.sigma_max), strict=True)
    return {f"edm_vpred.{name}": torch.tensor(end) for name, end in ends}


_ENDS = ("sigma_min", "sigma_max")


def _number(header: Header, name: str, usual: float) -> float:
    from engine.weights.load import read_tensors

    return float(read_tensors(header, [name])[name].float().flatten()[0]) if name in header else usual
