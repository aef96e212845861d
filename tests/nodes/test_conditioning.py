"""Conditioning nodes: what they write, and that what they were given stays as it was."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from engine.graph.node import NodeContext
from engine.nodes import conditioning_mix as mix
from engine.nodes import conditioning_where as where

CTX = cast(NodeContext, None)


def prompt(value: float, tokens: int = 2, pooled: float | None = None, **options: Any) -> list[list[Any]]:
    about = {} if pooled is None else {"pooled_output": torch.full((1, 3), pooled)}
    return [[torch.full((1, tokens, 4), value), {**about, **options}]]


def test_an_average_is_token_by_token_and_a_shorter_prompt_counts_as_zeros() -> None:
    given = prompt(1.0, 3, pooled=2.0, strength=0.5)
    (averaged,) = mix.conditioning_average(CTX, given, prompt(2.0, 1, pooled=4.0), 0.25)
    cross, options = averaged[0]
    assert cross[0, :, 0].tolist() == [0.25 + 1.5, 0.25, 0.25]
    assert options["pooled_output"].eq(3.5).all() and options["strength"] == 0.5
    assert given[0][0].eq(1.0).all() and given[0][1]["pooled_output"].eq(2.0).all()


def test_an_average_takes_the_pooled_text_of_the_only_one_that_has_it() -> None:
    (averaged,) = mix.conditioning_average(CTX, prompt(1.0), prompt(2.0, pooled=4.0), 0.25)
    assert averaged[0][1]["pooled_output"].eq(4.0).all()


def test_tokens_are_put_behind_each_other_and_options_kept() -> None:
    (joined,) = mix.conditioning_concat(CTX, prompt(1.0, 2, start_percent=0.5), prompt(2.0, 1))
    assert joined[0][0][0, :, 0].tolist() == [1.0, 1.0, 2.0] and joined[0][1] == {"start_percent": 0.5}


def test_no_prompt_is_zeros_of_the_same_shape() -> None:
    (zeroed,) = mix.conditioning_zero_out(CTX, prompt(1.0, 2, pooled=3.0, guidance=3.5))
    assert zeroed[0][0].eq(0).all() and zeroed[0][1]["pooled_output"].eq(0).all() and zeroed[0][1]["guidance"] == 3.5


def test_prompts_of_other_models_and_missing_ones_are_named() -> None:
    other = [[torch.zeros(1, 2, 5), {}]]
    with pytest.raises(mix.OtherWidth, match="4 and 5"):
        mix.conditioning_concat(CTX, prompt(1.0), other)
    with pytest.raises(mix.NoPrompt, match="conditioning_from"):
        mix.conditioning_average(CTX, prompt(1.0), [], 0.5)


def test_areas_masks_and_ranges() -> None:
    (area,) = where.conditioning_set_area(CTX, prompt(1.0), 64, 128, 8, 16, 1.5)
    assert area[0][1]["area"] == (16, 8, 2, 1) and area[0][1]["strength"] == 1.5
    (share,) = where.conditioning_set_area_percentage(CTX, prompt(1.0), 0.5, 0.25, 0.1, 0.2, 1.0)
    assert share[0][1]["area"] == ("percentage", 0.25, 0.5, 0.2, 0.1)
    (masked,) = where.conditioning_set_mask(CTX, prompt(1.0), torch.ones(8, 8), 0.7, "mask bounds")
    about = masked[0][1]
    assert about["mask"].shape == (1, 8, 8) and about["mask_strength"] == 0.7 and about["set_area_to_bounds"]
    (ranged,) = where.conditioning_set_timestep_range(CTX, prompt(1.0), 0.2, 0.9)
    assert (ranged[0][1]["start_percent"], ranged[0][1]["end_percent"]) == (0.2, 0.9)
    assert where.conditioning_timesteps_range(CTX, 0.2, 0.9) == ((0.2, 0.9), (0.0, 0.2), (0.9, 1.0))


def test_properties_are_set_on_the_new_prompts_alone() -> None:
    old, new = prompt(1.0), prompt(2.0)
    given: dict[str, Any] = {"strength": 0.5, "set_cond_area": "default", "mask": torch.ones(1, 8, 8)}
    positive, negative = where.pair_conditioning_set_properties_and_combine(
        CTX, old, old, new, new, timesteps=(0.1, 0.6), **given
    )
    assert positive[0][1] == {} and positive[1][1]["mask_strength"] == 0.5 and positive[1][1]["start_percent"] == 0.1
    assert negative[1][1]["end_percent"] == 0.6 and new[0][1] == {}
    (default,) = where.conditioning_set_default_combine(CTX, old, new)
    assert [entry[1] for entry in default] == [{}, {"default": True}]
