"""Guidance: what goes into one call of the model, and how its answers are weighed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.families.base import TextBatch
from engine.families.parts.schedule import DiscreteSchedule, scaled_linear_alphas_cumprod
from engine.sampling.conditioning import Area, Condition, meet_areas, read_conditioning
from engine.sampling.guidance import Guided
from engine.sampling.guiders import Cfg, DualCfg, perpendicular

SCHEDULE = DiscreteSchedule.from_alphas_cumprod(scaled_linear_alphas_cumprod())
LATENT = torch.zeros(2, 4, 16, 16)


class Recorder:
    """A model whose noise prediction is the mean of its prompt; it keeps what it was asked."""

    def __init__(self) -> None:
        self.inputs: list[tuple[Tensor, Tensor, TextBatch]] = []

    def __call__(self, x: Tensor, timesteps: Tensor, text: TextBatch) -> Tensor:
        self.inputs.append((x, timesteps, text))
        return torch.ones_like(x) * text.cross.mean(dim=(1, 2)).reshape(-1, 1, 1, 1)


def prompt(value: float, tokens: int = 77, **options: object) -> list[list[object]]:
    return [[torch.full((1, tokens, 8), value), dict(options)]]


def nothing(pooled: Tensor | None, options: object, latent: Tensor) -> dict[str, Tensor]:
    return {}


def read(conditioning: list, latent: Tensor = LATENT) -> list[Condition]:
    return read_conditioning(conditioning, latent, SCHEDULE, nothing)


def guided(model: Recorder, positive: list, negative: list, cfg: float = 7.0, prediction: str = "eps") -> Guided:
    read_sides = [read(side, LATENT) for side in (positive, negative)]
    return Guided(model, SCHEDULE, prediction, read_sides, Cfg(cfg))  # type: ignore[arg-type]


def test_guidance_goes_beyond_the_positive_prompt() -> None:
    denoised, uncond = guided(Recorder(), prompt(1.0), prompt(0.5), cfg=3.0).with_uncond(LATENT, 2.0)
    assert torch.allclose(uncond, torch.full_like(LATENT, -0.5 * 2))
    assert torch.allclose(denoised, torch.full_like(LATENT, -1.0 + 3 * (-2.0 + 1.0)))


def test_both_prompts_go_into_one_call_with_the_input_scaled_to_unit_variance() -> None:
    model = Recorder()
    x = torch.randn(2, 4, 16, 16)
    sigma = SCHEDULE.sigma(500)
    guided(model, prompt(1.0), prompt(0.5))(x, sigma)
    ((seen, timesteps, text),) = model.inputs
    assert torch.allclose(seen, torch.cat([x, x]) / math.sqrt(sigma**2 + 1))
    assert timesteps.tolist() == [500.0] * 4
    assert text.cross.mean(dim=(1, 2)).tolist() == [1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize("cfg", [1.0, 1.0 + 1e-10])
def test_at_cfg_one_the_negative_prompt_is_not_evaluated(cfg: float) -> None:
    model = Recorder()
    guided(model, prompt(1.0), prompt(0.5), cfg=cfg)(LATENT, 2.0)
    assert model.inputs[0][0].shape[0] == 2


def test_cfg_plus_plus_gets_the_unconditional_estimate_at_cfg_one_too() -> None:
    _, uncond = guided(Recorder(), prompt(1.0), prompt(0.5), cfg=1.0).with_uncond(LATENT, 2.0)
    assert torch.allclose(uncond, torch.full_like(LATENT, -1.0))


def test_a_shorter_prompt_is_repeated_to_the_longer_ones_length() -> None:
    model = Recorder()
    guided(model, prompt(1.0, 154), prompt(0.5, 77))(LATENT, 2.0)
    assert model.inputs[0][2].cross.shape == (4, 154, 8)
    assert model.inputs[0][2].cross[2:].eq(0.5).all()


def test_prompts_of_very_different_length_go_into_calls_of_their_own() -> None:
    model = Recorder()
    guided(model, prompt(1.0, 77 * 5), prompt(0.5, 77))(LATENT, 2.0)
    assert [text.cross.shape[1] for _, _, text in model.inputs] == [385, 77]


def test_v_prediction() -> None:
    sigma, x = 2.0, torch.randn(2, 4, 16, 16)
    denoised = guided(Recorder(), prompt(1.0), prompt(1.0), cfg=1.0, prediction="v")(x, sigma)
    assert torch.allclose(denoised, x / 5 - sigma / math.sqrt(5), atol=1e-6)


def test_prompts_of_one_side_are_weighed_by_their_strength() -> None:
    both = prompt(1.0, strength=3.0) + prompt(0.0, strength=1.0)
    assert torch.allclose(guided(Recorder(), both, prompt(0.0), cfg=1.0)(LATENT, 2.0), torch.full_like(LATENT, -1.5))


def test_a_prompt_counts_from_start_percent_to_end_percent() -> None:
    both = prompt(1.0, start_percent=0.0, end_percent=0.5) + prompt(0.0, start_percent=0.5, end_percent=1.0)
    denoiser = guided(Recorder(), both, prompt(0.0), cfg=1.0)
    assert float(denoiser(LATENT, SCHEDULE.sigma(700))[0, 0, 0, 0]) < -1
    assert float(denoiser(LATENT, SCHEDULE.sigma(300))[0, 0, 0, 0]) == 0


def test_an_area_is_asked_as_a_crop_and_fades_at_its_inner_border() -> None:
    model = Recorder()
    areas = prompt(1.0, area=(16, 8, 0, 0)) + prompt(0.0)
    denoised = guided(model, areas, prompt(0.0), cfg=1.0)(LATENT, 2.0)
    assert sorted(x.shape[-1] for x, _, _ in model.inputs) == [8, 16]
    assert denoised[0, 0, :, 8:].eq(0).all()
    assert torch.allclose(denoised[0, 0, :, :6], torch.tensor(-1.0))  # half of -2: two prompts of equal strength
    assert torch.allclose(denoised[0, 0, 0, 6:8], torch.tensor([-1.0, -2.0 * 0.5 / 1.5]))


def test_the_negative_prompt_is_asked_in_the_areas_of_the_positive_one() -> None:
    positive = read(prompt(1.0, area=(8, 8, 0, 8)))
    negative = read(prompt(0.5))
    _, met = meet_areas([positive, negative])
    assert [c.area for c in met] == [None, Area(8, 8, 0, 8)]
    assert met[1].text is negative[0].text


def test_an_area_in_percent_is_of_the_latent() -> None:
    (condition,) = read(prompt(1.0, area=("percentage", 0.5, 0.25, 0.5, 0.75)))
    assert condition.area == Area(8, 4, 8, 12)


def test_a_mask_is_fitted_to_the_latent_and_may_bound_an_area() -> None:
    mask = torch.zeros(1, 128, 128)
    mask[:, :, 64:] = 1
    options = {"mask": mask, "mask_strength": 0.5, "set_area_to_bounds": True}
    (condition,) = read(prompt(1.0, **options))
    assert condition.area == Area(16, 8, 0, 8)
    assert condition.weight(LATENT).shape == (2, 1, 16, 8)
    assert condition.weight(LATENT).eq(0.5).all()


def test_a_prompt_for_several_pictures_is_dealt_out() -> None:
    several = [[torch.stack([torch.full((77, 8), float(v)) for v in range(3)]), {}]]
    (condition,) = read(several, torch.zeros(5, 4, 8, 8))
    assert condition.text.cross[:, 0, 0].tolist() == [0, 1, 2, 0, 1]


def test_the_interrupt_is_looked_for_before_every_call_of_the_model() -> None:
    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    model = Recorder()
    denoiser = guided(model, prompt(1.0), prompt(0.5))
    denoiser.interrupt_check = stop
    with pytest.raises(Stop):
        denoiser(LATENT, 2.0)
    assert model.inputs == []


def test_a_default_prompt_counts_where_masks_leave_something() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[:, :, :4], mask[:, :, 4:8] = 1.0, 0.25
    sides = prompt(1.0, mask=mask) + prompt(0.0, default=True)
    denoised = guided(Recorder(), sides, prompt(0.0), cfg=1.0)(LATENT, 2.0)[0, 0, 0]
    assert torch.allclose(denoised[:4], torch.tensor(-2.0)) and torch.allclose(denoised[4:8], torch.tensor(-0.5))
    assert denoised[8:].eq(0).all()


def test_a_default_prompt_is_not_asked_where_nothing_is_left() -> None:
    model = Recorder()
    guided(model, prompt(1.0) + prompt(0.0, default=True), prompt(0.0), cfg=1.0)(LATENT, 2.0)
    assert model.inputs[0][0].shape[0] == 2


def dual(cfg: float, cfg_negative: float, nested: bool) -> tuple[Recorder, Guided]:
    model = Recorder()
    sides = [read(prompt(value)) for value in (1.0, 0.5, 0.25)]  # first, negative, second
    return model, Guided(model, SCHEDULE, "eps", sides, DualCfg(cfg, cfg_negative, nested))


def test_two_prompts_and_a_negative_one() -> None:
    _, regular = dual(5.0, 3.0, nested=False)
    assert torch.allclose(regular(LATENT, 1.0), torch.full_like(LATENT, -(0.5 + 3 * (0.25 - 0.5) + 5 * (1 - 0.25))))
    _, nested = dual(5.0, 3.0, nested=True)
    inner = 0.25 + 5 * (1 - 0.25)
    assert torch.allclose(nested(LATENT, 1.0), torch.full_like(LATENT, -(0.5 + 3 * (inner - 0.5))))


@pytest.mark.parametrize(("cfg", "cfg_negative", "asked"), [(1.0, 1.0, 1), (5.0, 1.0, 2), (1.0, 3.0, 3)])
def test_two_prompts_at_cfg_one_ask_for_what_counts_alone(cfg: float, cfg_negative: float, asked: int) -> None:
    model, denoiser = dual(cfg, cfg_negative, nested=False)
    denoiser(LATENT, 1.0)
    assert model.inputs[0][0].shape[0] == 2 * asked


def test_perp_neg_takes_away_what_is_at_right_angles_alone() -> None:
    positive, empty = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    positive[..., 0] = 2.0
    negative = torch.tensor([[[[3.0, 5.0]]]])
    assert perpendicular(positive, negative, empty, 0.5, 2.0).tolist() == [[[[4.0, -5.0]]]]


def test_a_guider_of_one_prompt_gives_zeros_for_the_unconditional_estimate() -> None:
    denoiser = Guided(Recorder(), SCHEDULE, "eps", [read(prompt(1.0))], Cfg(1.0))
    _, uncond = denoiser.with_uncond(LATENT, 2.0)
    assert uncond.eq(0).all()
