"""Nodes that choose a sampler and set its options, for the custom sampling nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from torch import Tensor

from engine.errors import GraphError
from engine.families.parts.resizing import resized
from engine.families.parts.schedule import Schedule
from engine.graph.node import MODEL, In, NodeContext, Out, node
from engine.nodes.sampling import SamplerName
from engine.sampling.model import schedule_of
from engine.sampling.samplers.table import LCM_UPSCALE, SAMPLERS, Sampler, sde_window

CATEGORY = "sampling/custom_sampling/samplers"
SAMPLER = [Out("SAMPLER")]


def _free(default: float, maximum: float = 100.0) -> In:
    return In("FLOAT", default=default, min=0.0, max=maximum, step=0.01, round=False)


Eta = Annotated[float, _free(1.0)]
SNoise = Annotated[float, _free(1.0)]
# Noise is drawn on the CPU whatever is chosen, so that a seed gives the same picture everywhere.
NoiseDevice = Annotated[Literal["gpu", "cpu"], In(["gpu", "cpu"])]


@node("KSamplerSelect", title_zh="K采样器选择", category=CATEGORY, outputs=SAMPLER)
def ksampler_select(ctx: NodeContext, sampler_name: SamplerName) -> tuple[Sampler]:
    return (SAMPLERS[sampler_name],)


@node("SamplerEulerAncestral", title_zh="采样器 Euler 祖先", category=CATEGORY, outputs=SAMPLER)
def sampler_euler_ancestral(ctx: NodeContext, eta: Eta, s_noise: SNoise) -> tuple[Sampler]:
    return (SAMPLERS["euler_ancestral"].having(eta=eta, s_noise=s_noise),)


@node(
    "SamplerEulerAncestralCFGPP",
    title="SamplerEulerAncestralCFG++",
    title_zh="采样器 Euler 祖先 CFG++",
    category=CATEGORY,
    outputs=SAMPLER,
)
def sampler_euler_ancestral_cfg_pp(
    ctx: NodeContext, eta: Annotated[float, _free(1.0, 1.0)], s_noise: Annotated[float, _free(1.0, 10.0)]
) -> tuple[Sampler]:
    return (SAMPLERS["euler_ancestral_cfg_pp"].having(eta=eta, s_noise=s_noise),)


class NoSource(GraphError):
    en = (
        "The version '{version}' is not there: its formula is published in no paper. Choose 'regular', which is CFG++ "
        "as its paper has it."
    )
    zh = "没有“{version}”版本：其公式未见于任何论文。请选择“regular”，即论文中的 CFG++。"


@node(
    "SamplerEulerCFGpp",
    title="SamplerEulerCFG++",
    title_zh="采样器 Euler CFG++",
    category="_for_testing",
    outputs=SAMPLER,
    experimental=True,
)
def sampler_euler_cfg_pp(ctx: NodeContext, version: Annotated[str, In(["regular", "alternative"])]) -> tuple[Sampler]:
    if version != "regular":
        raise NoSource(version=version)
    return (SAMPLERS["euler_cfg_pp"],)


@node("SamplerLMS", title_zh="采样器 LMS", category=CATEGORY, outputs=SAMPLER)
def sampler_lms(ctx: NodeContext, order: Annotated[int, In("INT", default=4, min=1, max=100)]) -> tuple[Sampler]:
    return (SAMPLERS["lms"].having(order=order),)


@node("SamplerDPMPP_2M_SDE", title_zh="采样器 DPM++ 2M SDE", category=CATEGORY, outputs=SAMPLER)
def sampler_dpmpp_2m_sde(
    ctx: NodeContext,
    solver_type: Annotated[str, In(["midpoint", "heun"])],
    eta: Eta,
    s_noise: SNoise,
    noise_device: NoiseDevice,
) -> tuple[Sampler]:
    return (SAMPLERS["dpmpp_2m_sde"].having(solver_type=solver_type, eta=eta, s_noise=s_noise),)


@node("SamplerDPMPP_3M_SDE", title_zh="采样器 DPM++ 3M SDE", category=CATEGORY, outputs=SAMPLER)
def sampler_dpmpp_3m_sde(ctx: NodeContext, eta: Eta, s_noise: SNoise, noise_device: NoiseDevice) -> tuple[Sampler]:
    return (SAMPLERS["dpmpp_3m_sde"].having(eta=eta, s_noise=s_noise),)


@node("SamplerDPMPP_SDE", title_zh="采样器 DPM++ SDE", category=CATEGORY, outputs=SAMPLER)
def sampler_dpmpp_sde(
    ctx: NodeContext, eta: Eta, s_noise: SNoise, r: Annotated[float, _free(0.5)], noise_device: NoiseDevice
) -> tuple[Sampler]:
    return (SAMPLERS["dpmpp_sde"].having(eta=eta, s_noise=s_noise, r=r),)


@node("SamplerDPMPP_2S_Ancestral", title_zh="采样器 DPM++ 2S 祖先", category=CATEGORY, outputs=SAMPLER)
def sampler_dpmpp_2s_ancestral(ctx: NodeContext, eta: Eta, s_noise: SNoise) -> tuple[Sampler]:
    return (SAMPLERS["dpmpp_2s_ancestral"].having(eta=eta, s_noise=s_noise),)


@node("SamplerDPMAdaptative", title_zh="采样器 DPM 自适应", category=CATEGORY, outputs=SAMPLER)
def sampler_dpm_adaptive(
    ctx: NodeContext,
    order: Annotated[int, In("INT", default=3, min=2, max=3)],
    rtol: Annotated[float, _free(0.05)],
    atol: Annotated[float, _free(0.0078)],
    h_init: Annotated[float, _free(0.05)],
    pcoeff: Annotated[float, _free(0.0)],
    icoeff: Annotated[float, _free(1.0)],
    dcoeff: Annotated[float, _free(0.0)],
    accept_safety: Annotated[float, _free(0.81)],
    eta: Annotated[float, _free(0.0)],
    s_noise: SNoise,
) -> tuple[Sampler]:
    adaptive = SAMPLERS["dpm_adaptive"].having(order=order, rtol=rtol, atol=atol, h_init=h_init, eta=eta)
    control = {"pcoeff": pcoeff, "icoeff": icoeff, "dcoeff": dcoeff, "accept_safety": accept_safety}
    return (adaptive.having(s_noise=s_noise, **control),)


@node("SamplerER_SDE", title_zh="采样器 ER-SDE", category=CATEGORY, outputs=SAMPLER)
def sampler_er_sde(
    ctx: NodeContext,
    solver_type: Annotated[str, In(["ER-SDE", "Reverse-time SDE", "ODE"])],
    max_stage: Annotated[int, In("INT", default=3, min=1, max=3)],
    eta: Annotated[
        float,
        In("FLOAT", default=1.0, min=0.0, max=100.0, step=0.01, round=False, tooltip="Of the reverse-time SDE alone."),
    ],
    s_noise: SNoise,
) -> tuple[Sampler]:
    """The noise scale of the paper's fifth kind, of the reverse-time SDE (sigma to the power 1 + eta), or none."""
    if solver_type == "ER-SDE":
        return (SAMPLERS["er_sde"].having(max_stage=max_stage, s_noise=s_noise),)
    if solver_type == "ODE" or eta == 0:
        eta = s_noise = 0.0
    return (SAMPLERS["er_sde"].having(max_stage=max_stage, s_noise=s_noise, power=eta + 1),)


@node("SamplerSASolver", title_zh="采样器 SA-Solver", category=CATEGORY, outputs=SAMPLER)
def sampler_sa_solver(
    ctx: NodeContext,
    model: MODEL,
    eta: Annotated[float, _free(1.0, 10.0)],
    sde_start_percent: Annotated[float, In("FLOAT", default=0.2, min=0.0, max=1.0, step=0.001)],
    sde_end_percent: Annotated[float, In("FLOAT", default=0.8, min=0.0, max=1.0, step=0.001)],
    s_noise: SNoise,
    predictor_order: Annotated[int, In("INT", default=3, min=1, max=6)],
    corrector_order: Annotated[int, In("INT", default=4, min=0, max=6)],
    use_pece: Annotated[bool, In("BOOLEAN")],
    simple_order_2: Annotated[bool, In("BOOLEAN")],
) -> tuple[Sampler]:
    """Noise is added between the two percents of the way, as the model at this node counts them."""
    schedule: Schedule = schedule_of(model)
    window = sde_window(schedule, sde_start_percent, sde_end_percent)
    orders = {"predictor_order": predictor_order, "corrector_order": corrector_order}
    return (
        SAMPLERS["sa_solver"].having(
            tau=eta, s_noise=s_noise, use_pece=use_pece, simple_order_2=simple_order_2, **orders, **window
        ),
    )


@node("SamplerLCMUpscale", title_zh="采样器 LCM 放大", category=CATEGORY, outputs=SAMPLER)
def sampler_lcm_upscale(
    ctx: NodeContext,
    scale_ratio: Annotated[float, In("FLOAT", default=1.0, min=0.1, max=20.0, step=0.01)],
    scale_steps: Annotated[int, In("INT", default=-1, min=-1, max=1000, step=1)],
    upscale_method: Annotated[str, In(["bislerp", "nearest-exact", "bilinear", "area", "bicubic"])],
) -> tuple[Sampler]:
    """LCM whose latent grows evenly over the first scale_steps steps; -1: over the first half."""

    def resize(latent: Tensor, width: int, height: int) -> Tensor:
        return resized(latent, width, height, upscale_method, "disabled")

    steps = None if scale_steps < 0 else scale_steps
    sampler = LCM_UPSCALE.having(resize=resize, scale=scale_ratio, scale_steps=steps)
    return (replace(sampler, growth=max(1.0, scale_ratio)),)


@node("SamplerSEEDS2", title_zh="采样器 SEEDS-2", category=CATEGORY, outputs=SAMPLER)
def sampler_seeds_2(
    ctx: NodeContext,
    solver_type: Annotated[str, In(["phi_1", "phi_2"])],
    eta: Eta,
    s_noise: SNoise,
    r: Annotated[float, In("FLOAT", default=0.5, min=0.01, max=1.0, step=0.01, round=False)],
) -> tuple[Sampler]:
    """phi_1 weighs the second stage by 1 / (2 r), phi_2 as the paper's second-order condition has it."""
    return (SAMPLERS["seeds_2"].having(solver_type=solver_type, eta=eta, s_noise=s_noise, r=r),)
