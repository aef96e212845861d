"""Nodes that make and change lists of sigmas. SIGMAS are 1-d float32 tensors on the CPU, from noisy to clean."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

import torch
from torch import Tensor

from engine.graph.node import MODEL, In, NodeContext, Out, node
from engine.nodes.model_sampling import ltxv_shift
from engine.nodes.sampling import SchedulerName, Steps
from engine.sampling import schedulers
from engine.sampling.model import schedule_of
from engine.sampling.sigma_lists import (
    ALIGN_YOUR_STEPS,
    OPTIMAL_STEPS,
    SPACINGS,
    exponential_sigmas,
    extended,
    karras_sigmas,
    laplace_sigmas,
    polyexponential_sigmas,
    shifted_sigmas,
    table_sigmas,
    vp_sigmas,
)

SIGMAS: TypeAlias = Annotated[Tensor, In("SIGMAS")]
Denoise = Annotated[float, In("FLOAT", default=1.0, min=0.0, max=1.0, step=0.01)]
SigmaMax = Annotated[float, In("FLOAT", default=14.614642, min=0.0, max=5000.0, step=0.01, round=False)]
SigmaMin = Annotated[float, In("FLOAT", default=0.0291675, min=0.0, max=5000.0, step=0.01, round=False)]

SCHEDULERS = "sampling/custom_sampling/schedulers"
CHANGES = "sampling/custom_sampling/sigmas"
BEFORE_ALL = 999999999.9  # what stands for "above every sigma" on a FLOAT link


def _shift(default: float) -> In:
    return In("FLOAT", default=default, min=0.0, max=100.0, step=0.01)


def _tensor(sigmas: list[float]) -> Tensor:
    return torch.tensor(sigmas, dtype=torch.float32)


@node("BasicScheduler", title_zh="基础调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def basic_scheduler(
    ctx: NodeContext, model: MODEL, scheduler: SchedulerName, steps: Steps, denoise: Denoise
) -> tuple[Tensor]:
    return (_tensor(schedulers.basic_sigmas(schedule_of(model), scheduler, steps, denoise)),)


@node("KarrasScheduler", title_zh="Karras 调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def karras_scheduler(
    ctx: NodeContext,
    steps: Steps,
    sigma_max: SigmaMax,
    sigma_min: SigmaMin,
    rho: Annotated[float, In("FLOAT", default=7.0, min=0.0, max=100.0, step=0.01, round=False)],
) -> tuple[Tensor]:
    return (_tensor(karras_sigmas(steps, sigma_min, sigma_max, rho)),)


@node("ExponentialScheduler", title_zh="指数调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def exponential_scheduler(ctx: NodeContext, steps: Steps, sigma_max: SigmaMax, sigma_min: SigmaMin) -> tuple[Tensor]:
    return (_tensor(exponential_sigmas(steps, sigma_min, sigma_max)),)


@node("PolyexponentialScheduler", title_zh="多项式指数调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def polyexponential_scheduler(
    ctx: NodeContext,
    steps: Steps,
    sigma_max: SigmaMax,
    sigma_min: SigmaMin,
    rho: Annotated[float, In("FLOAT", default=1.0, min=0.0, max=100.0, step=0.01, round=False)],
) -> tuple[Tensor]:
    return (_tensor(polyexponential_sigmas(steps, sigma_min, sigma_max, rho)),)


@node("LaplaceScheduler", title_zh="拉普拉斯调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def laplace_scheduler(
    ctx: NodeContext,
    steps: Steps,
    sigma_max: SigmaMax,
    sigma_min: SigmaMin,
    mu: Annotated[float, In("FLOAT", default=0.0, min=-10.0, max=10.0, step=0.1, round=False)],
    beta: Annotated[float, In("FLOAT", default=0.5, min=0.0, max=10.0, step=0.1, round=False)],
) -> tuple[Tensor]:
    return (_tensor(laplace_sigmas(steps, sigma_min, sigma_max, mu, beta)),)


@node("VPScheduler", title_zh="VP 调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def vp_scheduler(
    ctx: NodeContext,
    steps: Steps,
    beta_d: Annotated[float, In("FLOAT", default=19.9, min=0.0, max=5000.0, step=0.01, round=False)],
    beta_min: Annotated[float, In("FLOAT", default=0.1, min=0.0, max=5000.0, step=0.01, round=False)],
    eps_s: Annotated[float, In("FLOAT", default=0.001, min=0.0, max=1.0, step=0.0001, round=False)],
) -> tuple[Tensor]:
    return (_tensor(vp_sigmas(steps, beta_d, beta_min, eps_s)),)


@node("BetaSamplingScheduler", title_zh="Beta 采样调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def beta_sampling_scheduler(
    ctx: NodeContext,
    model: MODEL,
    steps: Steps,
    alpha: Annotated[float, In("FLOAT", default=0.6, min=0.0, max=50.0, step=0.01, round=False)],
    beta: Annotated[float, In("FLOAT", default=0.6, min=0.0, max=50.0, step=0.01, round=False)],
) -> tuple[Tensor]:
    return (_tensor(schedulers.beta(schedule_of(model), steps, alpha, beta)),)


@node("SDTurboScheduler", title_zh="SDTurbo 调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def sd_turbo_scheduler(
    ctx: NodeContext,
    model: MODEL,
    steps: Annotated[int, In("INT", default=1, min=1, max=10)],
    denoise: Annotated[float, In("FLOAT", default=1.0, min=0, max=1.0, step=0.01)],
) -> tuple[Tensor]:
    """The ten timesteps that turbo models were distilled at: 999, 899 ... 99; denoise leaves out the first ones."""
    timesteps = list(range(999, 0, -100))[10 - int(10 * denoise) :][:steps]
    schedule = schedule_of(model)
    return (_tensor([*(schedule.sigma(t) for t in timesteps), 0.0]),)


@node("AlignYourStepsScheduler", title_zh="AlignYourSteps 调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def align_your_steps_scheduler(
    ctx: NodeContext,
    model_type: Annotated[str, In(list(ALIGN_YOUR_STEPS))],
    steps: Annotated[int, In("INT", default=10, min=1, max=10000)],
    denoise: Denoise,
) -> tuple[Tensor]:
    return (_tensor(table_sigmas(ALIGN_YOUR_STEPS[model_type], steps, denoise)),)


@node("OptimalStepsScheduler", title_zh="最优步调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def optimal_steps_scheduler(
    ctx: NodeContext,
    model_type: Annotated[str, In(list(OPTIMAL_STEPS))],
    steps: Annotated[int, In("INT", default=20, min=3, max=1000)],
    denoise: Denoise,
) -> tuple[Tensor]:
    return (_tensor(table_sigmas(OPTIMAL_STEPS[model_type], steps, denoise)),)


@node("LTXVScheduler", title_zh="LTXV 调度器", category=SCHEDULERS, outputs=[Out("SIGMAS")])
def ltxv_scheduler(
    ctx: NodeContext,
    steps: Steps,
    max_shift: Annotated[float, _shift(2.05)],
    base_shift: Annotated[float, _shift(0.95)],
    stretch: Annotated[
        bool, In("BOOLEAN", default=True, tooltip="Stretch the sigmas to be in the range [terminal, 1].", advanced=True)
    ],
    terminal: Annotated[
        float,
        In(
            "FLOAT",
            default=0.1,
            min=0.0,
            max=0.99,
            step=0.01,
            tooltip="The last sigma above 0 when stretched.",
            advanced=True,
        ),
    ],
    latent: Annotated[dict[str, Any] | None, In("LATENT")] = None,
) -> tuple[Tensor]:
    """Even steps of a flow, shifted as for a latent of that size."""
    return (_tensor(shifted_sigmas(steps, ltxv_shift(latent, base_shift, max_shift), terminal if stretch else None)),)


@node("ManualSigmas", title_zh="手动 Sigma", category="_for_testing/custom_sampling", outputs=[Out("SIGMAS")])
def manual_sigmas(ctx: NodeContext, sigmas: Annotated[str, In("STRING", default="1, 0.5")]) -> tuple[Tensor]:
    """The numbers of a text, in their order, whatever stands between them."""
    return (_tensor([float(number) for number in re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", sigmas)]),)


@node(
    "SplitSigmas",
    title_zh="拆分 Sigma",
    category=CHANGES,
    outputs=[Out("SIGMAS", "high_sigmas"), Out("SIGMAS", "low_sigmas")],
)
def split_sigmas(
    ctx: NodeContext, sigmas: SIGMAS, step: Annotated[int, In("INT", default=0, min=0, max=10000)]
) -> tuple[Tensor, Tensor]:
    """Both parts have the sigma they meet at."""
    return sigmas[: step + 1], sigmas[step:]


@node(
    "SplitSigmasDenoise",
    title_zh="按降噪拆分 Sigma",
    category=CHANGES,
    outputs=[Out("SIGMAS", "high_sigmas"), Out("SIGMAS", "low_sigmas")],
)
def split_sigmas_denoise(ctx: NodeContext, sigmas: SIGMAS, denoise: Denoise) -> tuple[Tensor, Tensor]:
    """The second part holds that share of the steps."""
    steps = round(max(len(sigmas) - 1, 0) * denoise)
    return sigmas[: -steps or 0], sigmas[-(steps + 1) :]


@node("FlipSigmas", title_zh="翻转 Sigma", category=CHANGES, outputs=[Out("SIGMAS")])
def flip_sigmas(ctx: NodeContext, sigmas: SIGMAS) -> tuple[Tensor]:
    """From clean to noisy. A first sigma of 0 becomes 0.0001, since samplers divide by it."""
    flipped = sigmas.flip(0)
    if len(flipped) and flipped[0] == 0:
        flipped[0] = 0.0001
    return (flipped,)


@node("SetFirstSigma", title_zh="设置首个 Sigma", category=CHANGES, outputs=[Out("SIGMAS")])
def set_first_sigma(
    ctx: NodeContext,
    sigmas: SIGMAS,
    sigma: Annotated[float, In("FLOAT", default=136.0, min=0.0, max=20000.0, step=0.001, round=False)],
) -> tuple[Tensor]:
    changed = sigmas.clone()
    changed[:1] = sigma
    return (changed,)


@node("ExtendIntermediateSigmas", title_zh="扩展中间 Sigma", category=CHANGES, outputs=[Out("SIGMAS")])
def extend_intermediate_sigmas(
    ctx: NodeContext,
    sigmas: SIGMAS,
    steps: Annotated[int, In("INT", default=2, min=1, max=100)],
    start_at_sigma: Annotated[float, In("FLOAT", default=-1.0, min=-1.0, max=20000.0, step=0.01, round=False)],
    end_at_sigma: Annotated[float, In("FLOAT", default=12.0, min=0.0, max=20000.0, step=0.01, round=False)],
    spacing: Annotated[str, In(list(SPACINGS))],
) -> tuple[Tensor]:
    """Each step between the two sigmas is divided into `steps`."""
    return (_tensor(extended(sigmas.tolist(), steps, start_at_sigma, end_at_sigma, spacing)),)


@node("SamplingPercentToSigma", title_zh="采样百分比转 Sigma", category=CHANGES, outputs=[Out("FLOAT", "sigma_value")])
def sampling_percent_to_sigma(
    ctx: NodeContext,
    model: MODEL,
    sampling_percent: Annotated[float, In("FLOAT", default=0.0, min=0.0, max=1.0, step=0.0001)],
    return_actual_sigma: Annotated[
        bool,
        In(
            "BOOLEAN",
            default=False,
            tooltip="At 0 and 1: the model's own highest and lowest sigma instead of numbers beyond all of them.",
        ),
    ],
) -> tuple[float]:
    schedule = schedule_of(model)
    if return_actual_sigma and sampling_percent in (0.0, 1.0):
        return (schedule.sigma_min if sampling_percent else schedule.sigma_max,)
    return (min(schedule.percent_to_sigma(sampling_percent), BEFORE_ALL),)


def as_list(sigmas: Any) -> list[float]:
    """A SIGMAS link of any tensor kind, as samplers take it."""
    return [float(sigma) for sigma in torch.as_tensor(sigmas).flatten().tolist()]
