"""What is read back may differ from what was trained by rounding only, seen beside what the whole LoRA adds."""

from __future__ import annotations

import torch

from trainers.export import TOLERANCE, _delta, _distance


def test_a_module_that_hardly_learned_may_vanish_in_fp16() -> None:
    largest = 1e-4
    hardly = torch.full((4, 4), 1e-8)
    lost = hardly.to(torch.float16).float()
    assert float(lost.abs().max()) == 0
    assert _distance(lost, hardly, largest / 4) <= TOLERANCE[torch.float16]


def test_a_module_that_learned_must_come_back() -> None:
    down, up = torch.randn(2, 8, generator=torch.Generator().manual_seed(1)), torch.full((8, 2), 0.01)
    wanted = _delta(down, up, 1.0)
    assert _distance(_delta(down.half().float(), up.half().float(), 1.0), wanted, 0.0) <= TOLERANCE[torch.float16]
    assert _distance(_delta(down, -up, 1.0), wanted, 0.0) == 2.0
    assert _distance(torch.zeros(8, 8), wanted, 0.0) == 1.0
