"""Latents on a device that is not the CPU (tests/elsewhere.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from engine.families.parts.resizing import LATENT_METHODS, resized
from engine.models.device import Device
from tests.elsewhere import Elsewhere, TwoDevices, placing_away, strict


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    with strict():
        yield placing_away(monkeypatch)


def test_the_device_itself_is_strict_and_exact(device: Device):
    there, here = device.put(torch.ones(2, 3)), torch.ones(3)
    mixed: list[Callable[[], Tensor]] = [
        lambda: there + here,
        lambda: torch.cat([there, torch.ones(2, 3)]),
        lambda: there @ here,
        lambda: there.index_select(1, torch.tensor([0])),
    ]
    for work in mixed:
        with pytest.raises(TwoDevices):
            work()
    made = there + here.to(there) + torch.arange(3, device=there.device) + torch.tensor(1.0)
    assert isinstance(made, Elsewhere) and made.cpu().tolist() == [[3.0, 4.0, 5.0]] * 2
    assert float(made.sum()) == 24.0 and not isinstance(made.cpu(), Elsewhere)


@pytest.mark.parametrize("method", LATENT_METHODS)
def test_latents_are_resized_where_they_are(device: Device, method: str):
    latent = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    made = resized(device.put(latent), 12, 9, method, "center")
    assert isinstance(made, Elsewhere)
    torch.testing.assert_close(made.cpu(), resized(latent, 12, 9, method, "center"))
