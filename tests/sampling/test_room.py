"""The estimate of what a run takes beside its weights, held against what calls of real classes take."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.families.base import Adapter, Model
from engine.families.controls.base import Control, added
from engine.families.controls.discover import load_controlnet
from engine.families.flux import Flux
from engine.families.sd1 import SD1
from engine.models.device import CpuDevice, FakeDevice
from engine.models.manager import ModelManager, NoRoom
from engine.nodes.samplers import sampler_lcm_upscale
from engine.sampling.guiders import cfg_guider
from engine.sampling.model import guided
from engine.sampling.room import LEAST, working_bytes
from engine.weights.lora import LoraEntry
from tests.families.tiny import make_tiny_sd1
from tests.families.tiny_control import make_tiny_control
from tests.families.tiny_control_dit import tiny_flux_control
from tests.families.tiny_dit import in_file_layout, make_flux_checkpoint, save, tiny_flux


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that are made and not gone yet."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        torch.utils._pytree.tree_map_only(torch.Tensor, self._note, out)
        return out

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, lambda _: self._gone(key, nbytes))
            self.now += nbytes
            self.most = max(self.most, self.now)

    def _gone(self, key: int, nbytes: int) -> None:
        self._alive.pop(key, None)
        self.now -= nbytes


def peak(models: ModelManager, model: Model, sides: Any, latent: torch.Tensor) -> int:
    guider = cfg_guider(model, *sides, cfg=5.0)
    with guided(models, guider, latent, [5.0, 0.0], lambda: None) as (denoiser, _), torch.no_grad(), Peak() as counted:
        denoiser(latent, 5.0)
    return counted.most


def prompt(width: int, tokens: int, pooled: int = 0, **options: Any) -> list[Any]:
    vector = {"pooled_output": torch.zeros(1, pooled)} if pooled else {}
    return [[torch.zeros(1, tokens, width), {**vector, **options}]]


@pytest.fixture
def models() -> ModelManager:
    return ModelManager(FakeDevice(1 << 30))


@pytest.fixture
def sd1(tmp_path: Path, models: ModelManager) -> Model:
    return SD1().load_checkpoint(models, make_tiny_sd1(tmp_path / "tiny.safetensors")).model


@pytest.fixture
def flux(tmp_path: Path, models: ModelManager) -> Model:
    return Flux().load_checkpoint(models, make_flux_checkpoint(tmp_path / "flux.safetensors")).model


def under(models: ModelManager, path: Path, count: int, size: int) -> Control:
    control: Control | None = None
    for _ in range(count):
        control = Control(load_controlnet(models, path), torch.rand(1, size, size, 3), 0.7, previous=control)
    assert control is not None
    return control


SD1_SIDES: dict[str, Any] = {
    "plain": (prompt(32, 77), prompt(32, 77)),
    "two prompts a side": (prompt(32, 77) * 2, prompt(32, 77) * 2),
    "an area": (prompt(32, 77) + prompt(32, 77, area=(32, 32, 0, 0)), prompt(32, 77)),
}
FLUX_SIDES: dict[str, Any] = {
    "plain": prompt(48, 77, 24),
    "a long text": prompt(48, 2000, 24),  # as styles make it
    "a bias of attention": prompt(48, 277, 24, attention_bias=torch.zeros(1, 278, 278)),
    "references": prompt(48, 77, 24, reference_latents=[torch.ones(1, 16, 64, 64)] * 2),
}


@pytest.mark.parametrize("what", SD1_SIDES)
def test_a_unets_call_takes_no_more_and_not_much_less(models: ModelManager, sd1: Model, what: str):
    latent, sides = torch.zeros(1, 4, 64, 64), SD1_SIDES[what]
    assert 0.3 < peak(models, sd1, sides, latent) / (working_bytes(models, sd1, sides, latent) - LEAST) < 0.9


@pytest.mark.parametrize("what", FLUX_SIDES)
def test_a_transformers_call_takes_no_more_and_not_much_less(models: ModelManager, flux: Model, what: str):
    latent, sides = torch.zeros(1, 16, 64, 64), (FLUX_SIDES[what],) * 2
    assert 0.3 < peak(models, flux, sides, latent) / (working_bytes(models, flux, sides, latent) - LEAST) < 0.9


@pytest.mark.parametrize("count", [1, 2])
def test_so_does_one_under_control(models: ModelManager, sd1: Model, tmp_path: Path, count: int):
    control = under(models, make_tiny_control(tmp_path / "control.safetensors"), count, 256)
    sides = (prompt(32, 77, control=control, control_apply_to_uncond=True), prompt(32, 77))
    latent = torch.zeros(1, 4, 64, 64)
    room = working_bytes(models, sd1, sides, latent, [*control.chain()]) - LEAST
    assert room > 1.1 * (working_bytes(models, sd1, sides, latent) - LEAST)
    assert 0.3 < peak(models, sd1, sides, latent) / room < 0.9


def test_what_controls_say_is_what_was_counted(tmp_path: Path):
    models = ModelManager(CpuDevice())
    net = load_controlnet(models, save(tiny_flux_control().state_dict(), tmp_path / "control.safetensors"))
    assert net.kind.numbers_said(net, 64 * 64) == (1 + 2) * 64 * 32 * 32
    small = load_controlnet(models, make_tiny_control(tmp_path / "small.safetensors"))
    cells = 64 * 64  # levels of 8, 16, 16 channels, two layers each
    assert (
        small.kind.numbers_said(small, cells)
        == 8 * cells
        + 16 * cells
        + 8 * cells // 4
        + 2 * (16 * cells // 4)
        + 16 * cells // 16
        + 2 * (16 * cells // 16)
        + 16 * cells // 16
    )


def test_latents_that_grow_on_the_way_need_the_room_of_their_last_size(models: ModelManager, sd1: Model):
    sides = SD1_SIDES["plain"]
    grown = working_bytes(models, sd1, sides, torch.zeros(1, 4, 32, 32), growth=2.0)
    assert grown == working_bytes(models, sd1, sides, torch.zeros(1, 4, 64, 64))
    (sampler,) = sampler_lcm_upscale(cast(Any, None), 2.0, -1, "bilinear")
    assert sampler.growth == 2.0 and sampler.resizes


def test_one_pair_of_residuals_is_one_sum():
    one, two, other = torch.ones(2), torch.ones(2), torch.ones(2)
    sums = added({"double": [one, one, two]}, {"double": [other, other, other]})["double"]
    assert sums[0] is sums[1] and sums[0] is not sums[2] and torch.equal(sums[2], two + other)


def test_loras_lie_on_the_device_while_they_act(models: ModelManager, sd1: Model):
    latent, sides = torch.zeros(1, 4, 64, 64), SD1_SIDES["plain"]
    entry = LoraEntry(torch.zeros(4, 8), torch.zeros(8, 4))
    adapted = replace(sd1, adapters=(Adapter("a", "a", 0.5, {"mid_block.attentions.0.proj_in": entry}),))
    host = ModelManager(CpuDevice())
    host.add(models._entries[sd1.ref.key].spec)
    there, here = (working_bytes(m, adapted, sides, latent) for m in (models, host))
    assert there - working_bytes(models, sd1, sides, latent) == 4 * (32 + 32)
    assert here == working_bytes(host, sd1, sides, latent) == there - LEAST - 4 * (32 + 32)


def test_layers_that_unpack_their_weights_are_counted(tmp_path: Path):
    tensors = {name: t.to(torch.float8_e4m3fn) for name, t in in_file_layout(tiny_flux()).items()}
    largest = 6 * 64 * 64  # a modulation; what is one layer in the file is several
    models = ModelManager(CpuDevice())
    whole = Flux().load_denoiser(models, save(tensors, tmp_path / "whole.safetensors"))
    small = Flux().load_denoiser(models, save(tensors, tmp_path / "small.safetensors", None))
    cast = Flux().load_denoiser(models, tmp_path / "whole.safetensors", weight_dtype="fp8_e5m2")
    assert [models.unpacking(m.ref) for m in (whole, small, cast)] == [0, 4 * largest, 4 * largest]


def test_a_run_that_does_not_fit_beside_its_weights_is_refused_before_it_begins(tmp_path: Path):
    path = make_tiny_sd1(tmp_path / "tiny.safetensors")
    latent, sides = torch.zeros(1, 4, 64, 64), SD1_SIDES["plain"]
    probe = ModelManager(FakeDevice(1 << 30))
    model = SD1().load_checkpoint(probe, path).model
    need = probe.nbytes(model.ref) + working_bytes(probe, model, sides, latent)
    for room, fits in ((need, True), (need - 1, False)):
        models = ModelManager(FakeDevice(room))
        model = SD1().load_checkpoint(models, path).model
        with (
            nullcontext() if fits else pytest.raises(NoRoom),
            guided(models, cfg_guider(model, *sides, cfg=5.0), latent, [1.0, 0.0], lambda: None),
        ):
            assert fits
