"""Small models run on one thread, others on all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.models.threads import SMALL, threads_for


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_small_model_gets_one_thread_and_the_others_come_back_also_after_an_error() -> None:
    with pytest.raises(ValueError, match="stop"), threads_for(nn.Linear(4, 4)):
        assert torch.get_num_threads() == 1
        raise ValueError("stop")
    assert torch.get_num_threads() == 2


def test_a_large_model_keeps_all_threads() -> None:
    with torch.device("meta"):
        large = nn.Linear(SMALL // 4, 1)
    with threads_for(large):
        assert torch.get_num_threads() == 2
