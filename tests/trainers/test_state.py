import errno

import pytest
import torch

from engine.errors import DiskFull
from trainers.state import State, load_state, save_state


def make_state(step):
    weight = torch.nn.Parameter(torch.arange(4.0))
    optimizer = torch.optim.AdamW([{"params": [weight], "lr": 0.1}])
    for _ in range(step):
        weight.grad = torch.ones(4)
        optimizer.step()
    return State(step, {"denoiser.a.down": weight}, optimizer.state_dict(), {"scale": 65536.0})


def test_a_state_comes_back_bit_by_bit(tmp_path):
    state = make_state(3)
    save_state(tmp_path, state)
    found = load_state(tmp_path)
    assert found is not None and found.step == 3 and found.scaler == {"scale": 65536.0}
    assert torch.equal(found.adapters["denoiser.a.down"], state.adapters["denoiser.a.down"])
    for name, value in state.optimizer["state"][0].items():
        assert torch.equal(found.optimizer["state"][0][name], value)
    assert found.optimizer["param_groups"][0]["lr"] == 0.1


def test_the_last_two_states_are_kept(tmp_path):
    for step in (1, 2, 3):
        save_state(tmp_path, make_state(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000002.safetensors", "step-0000003.safetensors"]


def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path):
    save_state(tmp_path, make_state(1))
    newest = save_state(tmp_path, make_state(2))
    newest.write_bytes(newest.read_bytes()[:100])
    found = load_state(tmp_path)
    assert found is not None and found.step == 1
    assert load_state(tmp_path / "nothing") is None


def test_a_full_disk_leaves_the_old_states_and_nothing_else(tmp_path, monkeypatch):
    save_state(tmp_path, make_state(1))
    before = sorted(tmp_path.iterdir())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DiskFull):
        save_state(tmp_path, make_state(2))
    assert sorted(tmp_path.iterdir()) == before
