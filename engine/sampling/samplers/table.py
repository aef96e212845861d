"""Every sampler by ComfyUI's name, with the kind of noise it walks on. A new sampler is a function and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor

from engine.families.parts.schedule import Schedule, noise_to_signal
from engine.sampling.samplers import dpm_solver, dpmpp, euler, exponential, flow, multistep, stochastic, uni_pc


def _nothing(schedule: Schedule) -> dict[str, Any]:
    return {}


def sde_window(schedule: Schedule, start_percent: float = 0.2, end_percent: float = 0.8) -> dict[str, float]:
    """SA-Solver adds noise in the middle of the way alone."""
    start, end = (
        noise_to_signal(schedule, schedule.percent_to_sigma(percent)) for percent in (start_percent, end_percent)
    )
    return {"sde_start_sigma": start, "sde_end_sigma": end}


def _mixing(schedule: Schedule) -> dict[str, Any]:
    return {"alpha": schedule.alpha}


@dataclass(frozen=True)
class Sampler:
    """A `sample_*` function, the noise it adds, and options that follow from the model's schedule.

    fresh_mask_noise: with a mask, what lies outside of it gets noise of its own (of seed + 1).
    resizes: x changes its size on the way. growth: by what its sides have grown at the end.
    over_ratio: for flow models it runs over the ratio of noise to signal.
    """

    function: Callable[..., Tensor]
    noise: Literal["step", "brownian"] = "step"
    options: Callable[[Schedule], Mapping[str, Any]] = _nothing
    fresh_mask_noise: bool = False
    over_ratio: bool = False
    resizes: bool = False
    growth: float = 1.0

    @property
    def name(self) -> str:
        return self.function.__name__.removeprefix("sample_")

    def on(self, schedule: Schedule) -> Callable[..., Tensor]:
        """(denoiser, x, sigmas, *, callback, noise) -> x, for models of that schedule."""
        function = self.function
        if schedule.is_flow and self.over_ratio:
            function = flow.exploding(function, schedule)
        return partial(function, **self.options(schedule))

    def having(self, **options: Any) -> Sampler:
        """With options of its function; which win over those that follow from the schedule."""
        return replace(self, options=lambda schedule: {**self.options(schedule), **options})


LCM_UPSCALE = Sampler(stochastic.sample_lcm_upscale, options=_mixing, resizes=True)

_2m_sde = Sampler(dpmpp.sample_dpmpp_2m_sde, "brownian", over_ratio=True)
_2m_sde_heun = Sampler(dpmpp.sample_dpmpp_2m_sde_heun, "brownian", over_ratio=True)
_3m_sde = Sampler(dpmpp.sample_dpmpp_3m_sde, "brownian", over_ratio=True)
_sde = Sampler(dpmpp.sample_dpmpp_sde, "brownian", over_ratio=True)

# The *_gpu names drew their noise on the GPU once; here all noise is the CPU's, so that they equal the plain ones.
SAMPLERS: Mapping[str, Sampler] = {
    "euler": Sampler(euler.sample_euler),
    "euler_cfg_pp": Sampler(euler.sample_euler_cfg_pp, options=_mixing),
    "euler_ancestral": Sampler(euler.sample_euler_ancestral, options=flow.ancestral_options),
    "euler_ancestral_cfg_pp": Sampler(euler.sample_euler_ancestral_cfg_pp, options=_mixing),
    "heun": Sampler(euler.sample_heun),
    "heunpp2": Sampler(euler.sample_heunpp2),
    "dpm_2": Sampler(euler.sample_dpm_2),
    "dpm_2_ancestral": Sampler(euler.sample_dpm_2_ancestral, options=flow.ancestral_options),
    "lms": Sampler(multistep.sample_lms),
    "dpm_fast": Sampler(dpm_solver.sample_dpm_fast),
    "dpm_adaptive": Sampler(dpm_solver.sample_dpm_adaptive),
    "dpmpp_2s_ancestral": Sampler(dpmpp.sample_dpmpp_2s_ancestral, options=flow.halfway_options),
    "dpmpp_2s_ancestral_cfg_pp": Sampler(dpmpp.sample_dpmpp_2s_ancestral_cfg_pp),
    "dpmpp_sde": _sde,
    "dpmpp_sde_gpu": _sde,
    "dpmpp_2m": Sampler(dpmpp.sample_dpmpp_2m),
    "dpmpp_2m_cfg_pp": Sampler(dpmpp.sample_dpmpp_2m_cfg_pp),
    "dpmpp_2m_sde": _2m_sde,
    "dpmpp_2m_sde_gpu": _2m_sde,
    "dpmpp_2m_sde_heun": _2m_sde_heun,
    "dpmpp_2m_sde_heun_gpu": _2m_sde_heun,
    "dpmpp_3m_sde": _3m_sde,
    "dpmpp_3m_sde_gpu": _3m_sde,
    "ddpm": Sampler(stochastic.sample_ddpm),
    "lcm": Sampler(stochastic.sample_lcm, options=_mixing),
    "ipndm": Sampler(multistep.sample_ipndm),
    "ipndm_v": Sampler(multistep.sample_ipndm_v),
    "deis": Sampler(multistep.sample_deis),
    "res_multistep": Sampler(exponential.sample_res_multistep),
    "res_multistep_cfg_pp": Sampler(exponential.sample_res_multistep_cfg_pp),
    "res_multistep_ancestral": Sampler(exponential.sample_res_multistep_ancestral),
    "res_multistep_ancestral_cfg_pp": Sampler(exponential.sample_res_multistep_ancestral_cfg_pp),
    "gradient_estimation": Sampler(multistep.sample_gradient_estimation),
    "gradient_estimation_cfg_pp": Sampler(multistep.sample_gradient_estimation_cfg_pp),
    "er_sde": Sampler(exponential.sample_er_sde, over_ratio=True),
    "seeds_2": Sampler(exponential.sample_seeds_2, over_ratio=True),
    "seeds_3": Sampler(exponential.sample_seeds_3, over_ratio=True),
    "sa_solver": Sampler(exponential.sample_sa_solver, options=sde_window, over_ratio=True),
    "sa_solver_pece": Sampler(exponential.sample_sa_solver_pece, options=sde_window, over_ratio=True),
    "ddim": Sampler(euler.sample_euler, fresh_mask_noise=True),  # without its own noise DDIM is Euler's method in sigma
    "uni_pc": Sampler(uni_pc.sample_uni_pc),
    "uni_pc_bh2": Sampler(uni_pc.sample_uni_pc_bh2),
}
