"""The device layer on a fake device: budgets, leases and eviction, by example and by properties."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from torch import nn

from engine.models.device import CpuDevice, Device, FakeDevice, UnknownDevice, open_device
from engine.models.loaded import OpaqueModel, TorchModel
from engine.models.manager import ModelManager, ModelRef, ModelSpec, NoRoom, Role

BYTES = 4 * 16 * 16  # of one layer below


def spec_of(key: str, layers: int = 1, role: Role = "other", loads: list[str] | None = None) -> ModelSpec:
    def load(_: Device) -> TorchModel:
        if loads is not None:
            loads.append(key)
        torch.manual_seed(hash(key) % 1000)
        return TorchModel(nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(layers))))

    return ModelSpec(key, role, key, layers * BYTES, load)


def test_nothing_is_read_until_first_used_and_then_once() -> None:
    loads: list[str] = []
    manager = ModelManager(FakeDevice(10 * BYTES))
    ref, same = manager.add(spec_of("a", loads=loads)), manager.add(spec_of("a", loads=loads))
    assert ref == same and loads == []
    with manager.lease(ref) as one, manager.lease(same) as two:
        assert one[ref] is two[ref]
    assert loads == ["a"]


def test_the_longest_unused_model_goes_first() -> None:
    manager = ModelManager(FakeDevice(2 * BYTES))
    a, b, c = (manager.add(spec_of(k)) for k in "abc")
    for ref in (a, b, a, c):
        with manager.lease(ref):
            pass
    assert {m["key"]: m["state"] for m in manager.snapshot()["models"]} == {
        "c": "resident",
        "a": "resident",
        "b": "host",
    }


def test_what_can_only_live_on_the_device_has_room_made_before_and_is_dropped_when_it_goes() -> None:
    device = FakeDevice(2 * BYTES)
    manager = ModelManager(device)
    seen: list[dict[str, str]] = []

    def states() -> dict[str, str]:
        return {model["key"]: model["state"] for model in manager.snapshot()["models"]}

    def session(_: Device) -> OpaqueModel:
        seen.append(states())
        return OpaqueModel("session", 2 * BYTES)

    other = manager.add(spec_of("other"))
    ref = manager.add(ModelSpec("s", "tagger", "s", 2 * BYTES, session, loads_there=True))
    for wanted in (other, ref, other, ref):
        with manager.lease(wanted):
            pass
    assert [one["other"] for one in seen] == ["host", "host"]  # it was away before the session was made
    with manager.lease(other):
        assert states() == {"other": "resident", "s": "file"}


def test_a_leased_model_stays_and_a_lease_that_does_not_fit_says_so() -> None:
    manager = ModelManager(FakeDevice(2 * BYTES))
    a, big = manager.add(spec_of("a")), manager.add(spec_of("big", 2))
    with manager.lease(a) as leased:
        before = leased[a][0].weight.clone()
        with pytest.raises(NoRoom, match="big"), manager.lease(big):
            pass
        assert torch.equal(leased[a][0].weight, before)
    with manager.lease(big):
        assert manager.ledger() == {"resident": 2 * BYTES, "working": 0, "training": 0}


def test_working_memory_is_reserved_and_given_back() -> None:
    manager = ModelManager(FakeDevice(3 * BYTES))
    a, b = manager.add(spec_of("a")), manager.add(spec_of("b"))
    with manager.lease(b):
        pass
    with manager.lease(a, working=2 * BYTES):
        assert manager.ledger() == {"resident": BYTES, "working": 2 * BYTES, "training": 0}
    assert manager.ledger()["working"] == 0


def test_weights_come_back_bit_for_bit_after_eviction() -> None:
    manager = ModelManager(FakeDevice(BYTES))
    a, b = manager.add(spec_of("a")), manager.add(spec_of("b"))
    with manager.lease(a) as leased:
        before = leased[a][0].weight.clone()
    with manager.lease(b):
        pass
    with manager.lease(a) as leased:
        assert torch.equal(leased[a][0].weight, before)


def test_a_twin_shares_tensors_but_not_structure() -> None:
    manager = ModelManager(CpuDevice())
    a = manager.add(spec_of("a", 2))
    with manager.lease(a) as leased:
        twin = leased.twin(a)
        twin.train()
        twin[0] = nn.Sequential(twin[0], nn.Identity())
        assert twin[1].weight is leased[a][1].weight
        assert not leased[a].training and isinstance(leased[a][0], nn.Linear)


def test_weights_loaded_inside_inference_mode_can_still_be_trained_beside() -> None:
    manager = ModelManager(CpuDevice())
    a = manager.add(spec_of("a"))
    with torch.inference_mode(), manager.lease(a) as leased:
        assert not leased[a][0].weight.is_inference()
    with manager.lease(a) as leased:
        x = torch.ones(1, 16, requires_grad=True)
        leased[a](x).sum().backward()
        assert x.grad is not None


def test_a_failed_load_leaves_no_lease_behind() -> None:
    def broken(_: Device) -> OpaqueModel:
        raise OSError("gone")

    manager = ModelManager(FakeDevice(BYTES))
    ref = manager.add(ModelSpec("x", "other", "x", 1, broken))
    with pytest.raises(OSError, match="gone"), manager.lease(ref):
        pass
    assert manager.snapshot()["models"][0]["leases"] == 0


def test_at_most_so_many_models_of_a_role_stay() -> None:
    manager = ModelManager(FakeDevice(100 * BYTES), caps_by_role={"vae": 3})
    refs = [manager.add(spec_of(f"vae{i}", role="vae")) for i in range(5)]
    for ref in refs:
        with manager.lease(ref):
            pass
    states = {m["key"]: m["state"] for m in manager.snapshot()["models"]}
    assert [states[f"vae{i}"] for i in range(5)] == ["file", "file", "resident", "resident", "resident"]


def test_a_snapshot_does_not_wait_for_a_load() -> None:
    started, go = threading.Event(), threading.Event()

    def slow(_: Device) -> OpaqueModel:
        started.set()
        go.wait(10)
        return OpaqueModel("session", 5)

    manager = ModelManager(FakeDevice(100))
    ref = manager.add(ModelSpec("slow", "tagger", "slow", 5, slow))

    def hold() -> None:
        with manager.lease(ref):
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    assert started.wait(10)
    assert manager.snapshot()["models"][0]["state"] == "file"
    go.set()
    thread.join(10)


def test_an_unknown_device_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownDevice, match="cpu"):
        open_device("cuda:99")


class Leases(RuleBasedStateMachine):
    """Any order of leases, releases and trims keeps the books right."""

    refs: Bundle[ModelRef] = Bundle("refs")
    held: Bundle[ExitStack] = Bundle("held")

    @initialize(capacity=st.integers(2, 12))
    def start(self, capacity: int) -> None:
        self.device = FakeDevice(capacity * BYTES)
        self.manager = ModelManager(self.device)
        self.open: dict[ExitStack, list[tuple[nn.Module, torch.Tensor]]] = {}

    @rule(target=refs, key=st.sampled_from("abcdef"), layers=st.integers(1, 4))
    def add(self, key: str, layers: int) -> ModelRef:
        return self.manager.add(spec_of(f"{key}{layers}", layers))

    @rule(target=held, chosen=st.lists(refs, max_size=3), working=st.integers(0, 3))
    def acquire(self, chosen: list[ModelRef], working: int) -> ExitStack:
        stack = ExitStack()
        try:
            leased = stack.enter_context(self.manager.lease(*chosen, working=working * BYTES))
            self.open[stack] = [(m, m[0].weight.clone()) for m in leased.values()]
        except NoRoom:
            self.open[stack] = []
        return stack

    @rule(stack=consumes(held))
    def release(self, stack: ExitStack) -> None:
        stack.close()
        del self.open[stack]

    @rule(layers=st.integers(0, 4))
    def trim(self, layers: int) -> None:
        self.manager.trim(layers * BYTES)

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "manager"):
            return
        ledger = self.manager.ledger()
        assert ledger["resident"] == self.device.used
        assert sum(ledger.values()) <= self.device.capacity
        for held in self.open.values():
            for module, weight in held:
                assert torch.equal(module[0].weight, weight)

    def teardown(self) -> None:
        for stack in getattr(self, "open", {}):
            stack.close()
        if hasattr(self, "manager"):
            assert all(m["leases"] == 0 for m in self.manager.snapshot()["models"])
            assert self.manager.ledger()["working"] == 0


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
