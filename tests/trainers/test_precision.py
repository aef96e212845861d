import pytest
import torch
from accelerate.state import AcceleratorState

from trainers.precision import NoFullPrecision, NoHalfPrecision, accelerator, resolve

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_runs_of_different_precision_follow_each_other_and_lie_inside_each_other():
    with accelerator("bf16", 2, CPU) as outer:
        with accelerator("no", 1, CPU) as inner:
            assert inner.mixed_precision == "no" and inner.gradient_accumulation_steps == 1
        assert outer.mixed_precision == "bf16" and outer.gradient_accumulation_steps == 2
        with outer.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert not AcceleratorState._shared_state
    with accelerator("no", 1, CPU) as third:
        assert third.mixed_precision == "no"


def test_a_state_that_was_there_before_is_put_back_after_an_error():
    with accelerator("bf16", 1, CPU):
        before = dict(AcceleratorState._shared_state)
        with pytest.raises(RuntimeError), accelerator("no", 1, CPU):
            raise RuntimeError
        assert before == AcceleratorState._shared_state


def test_auto_is_full_precision_on_a_cpu_and_a_wrong_choice_is_refused():
    assert resolve("auto", torch.float32, CPU) == "no"
    assert resolve("bf16", torch.float32, CPU) == "bf16"
    with pytest.raises(NoHalfPrecision, match="auto or bf16"):
        resolve("fp16", torch.float32, CPU)
    with pytest.raises(NoFullPrecision, match="float16"):
        resolve("no", torch.float16, CUDA)
