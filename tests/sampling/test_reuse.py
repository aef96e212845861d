"""EasyCache and LazyCache: when a model is asked, what stands for its answer, and that other runs see nothing of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.families.base import TextBatch
from engine.families.parts.patch import Evaluation, Guidance, Patch
from engine.nodes.reuse import easy_cache_node, lazy_cache_node
from engine.sampling.guidance import Guided
from engine.sampling.guiders import Cfg
from engine.sampling.patches.reuse import Reuse, easy_cache, lazy_cache
from tests.sampling.test_guidance import SCHEDULE, prompt, read
from tests.sampling.test_run import Context, model, run
from tests.sampling.test_unet_patches import CTX

SIGMAS = [14.0, 10.0, 7.0, 5.0, 3.0, 2.0, 1.0]


class Model:
    """Answers with a third of its input and the prompt's mean; counts."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, x: Tensor, timesteps: Tensor, text: TextBatch, control: Any = None) -> Tensor:
        self.calls.append(x.shape[0])
        return x / 3 + text.cross.mean(dim=(1, 2)).reshape(-1, 1, 1, 1)


def guided(asked: Model, *patches: Patch) -> Guided:
    sides = [read(prompt(1.0)), read(prompt(0.5))]
    return Guided(asked, SCHEDULE, "x0", sides, Cfg(3.0), patches=patches, sigmas=list(SIGMAS))


def xs() -> list[Tensor]:
    start, change = (torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    return [start + change * i * 0.1 for i in range(len(SIGMAS))]


def test_a_threshold_of_nothing_reuses_nothing() -> None:
    for patch in (easy_cache(0.0, math.inf, 0.0), lazy_cache(0.0, math.inf, 0.0)):
        plain, cached = Model(), Model()
        bare, with_patch = guided(plain), guided(cached, patch)
        for x, sigma in zip(xs(), SIGMAS, strict=True):
            assert torch.equal(bare(x, sigma), with_patch(x, sigma))
        assert cached.calls == plain.calls


def test_an_answer_is_reused_with_the_difference_it_made_until_the_errors_sum_is_too_large() -> None:
    """Against the paper's algorithm, step by step."""
    threshold, seen, calls = 0.4, [], []
    cache = Reuse("EasyCache", threshold, math.inf, 0.0, False)
    inputs = [torch.tensor([v]) for v in (10.0, 9.0, 8.5, 8.0, 7.0, 6.8, 6.0)]

    def answers(x: Tensor) -> Tensor:
        calls.append(float(x))
        return x**2 / 10

    for x, sigma in zip(inputs, SIGMAS, strict=True):
        seen.append(float(cache(Evaluation("a", x, sigma, SIGMAS), lambda x=x: answers(x))))
    expected, last, rate, error, asked = [], None, None, 0.0, []
    for x in (float(x) for x in inputs):
        if last is not None and rate is not None:
            error += rate * abs(x - last[0]) / abs(last[1])
            if error < threshold:
                last = (x, x + last[2], last[2])
                expected.append(last[1])
                continue
        asked.append(x)
        v = x**2 / 10
        rate = rate if last is None else abs(v - last[1]) / abs(x - last[0])
        last, error = (x, v, v - x), 0.0
        expected.append(v)
    assert seen == pytest.approx(expected, rel=1e-5)
    assert calls == pytest.approx(asked) and len(calls) < len(inputs) and calls[:2] == [10.0, 9.0] and len(calls) > 2


@pytest.mark.parametrize("make", [easy_cache, lazy_cache])
def test_it_reuses_between_its_two_sigmas_alone(make: Any) -> None:
    asked = Model()
    denoiser = guided(asked, make(100.0, 7.0, 2.0, True))
    before = []
    for x, sigma in zip(xs(), SIGMAS, strict=True):
        denoiser(x, sigma)
        before.append(len(asked.calls))
    assert before == [1, 2, 2, 2, 2, 2, 3]


def test_prompts_that_go_into_other_calls_are_kept_apart() -> None:
    asked = Model()
    sides = [read(prompt(1.0)), read(prompt(0.5, 76))]
    patch = easy_cache(100.0, math.inf, 0.0)
    denoiser = Guided(asked, SCHEDULE, "x0", sides, Cfg(3.0), patches=[patch], sigmas=SIGMAS)
    first = xs()[0]
    for _ in range(2):
        denoiser(first, 14.0)
        denoiser(first * 1.01, 10.0)
    assert len(asked.calls) == 4 and asked.calls == [2] * 4
    out = denoiser(first, 7.0)
    exact = Guided(Model(), SCHEDULE, "x0", sides, Cfg(3.0))(first, 7.0)
    assert float((out - exact).mean()) == pytest.approx(0.0, abs=0.05)


def test_lazy_reuse_serves_samplers_that_step_along_the_negative_estimate() -> None:
    asked = Model()
    denoiser = guided(asked, lazy_cache(100.0, math.inf, 0.0))
    points = xs()
    for x, sigma in zip(points, SIGMAS, strict=True):
        denoised, uncond = denoiser.with_uncond(x, sigma)
    assert len(asked.calls) == 2
    exact = guided(Model()).with_uncond(points[1], SIGMAS[1])
    assert torch.allclose(denoised - points[-1], exact[0] - points[1], atol=1e-5)
    assert torch.allclose(uncond - points[-1], exact[1] - points[1], atol=1e-5)


def test_another_run_and_another_size_begin_anew() -> None:
    cache = Reuse("EasyCache", 100.0, math.inf, 0.0, False)
    one = [14.0, 7.0, 3.0]
    for x in (1.0, 2.0, 3.0):
        cache(Evaluation("a", torch.tensor([x]), 3.0, one), lambda: torch.tensor([5.0]))
    fresh = cache(Evaluation("a", torch.tensor([4.0]), 3.0, list(one)), lambda: torch.tensor([7.0]))
    assert fresh.tolist() == [7.0]
    larger = cache(Evaluation("a", torch.zeros(2), 3.0, cache.sigmas), lambda: torch.ones(2))
    assert larger.tolist() == [1.0, 1.0]


def test_what_a_patch_asks_for_itself_is_not_mixed_up_with_the_run() -> None:
    asked = Model()

    def post(seen: Guidance, denoised: Tensor) -> Tensor:
        return denoised + seen.ask(prompt(2.0)) * 0.0

    denoiser = guided(asked, easy_cache(100.0, math.inf, 0.0), Patch("asks", post=post))
    denoiser.read = read
    for x, sigma in zip(xs(), SIGMAS, strict=True):
        denoiser(x, sigma)
    assert len(asked.calls) == 2 + len(SIGMAS)


@pytest.mark.parametrize("node", [easy_cache_node, lazy_cache_node])
def test_nodes_save_evaluations_and_leave_the_model(node: Any, caplog: pytest.LogCaptureFixture) -> None:
    ctx = Context()
    plain = run(ctx, steps=8)
    (cached,) = node(CTX, model(ctx), 0.5, 0.15, 0.95, True)
    with caplog.at_level("INFO"):
        out = run(ctx, cached, steps=8)
    assert any("reused" in record.message for record in caplog.records)
    assert out.isfinite().all() and float((out - plain).norm() / plain.norm()) < 0.5
    assert not torch.equal(out, plain) and torch.equal(run(ctx, cached, steps=8), out)
    assert torch.equal(run(ctx, steps=8), plain)
