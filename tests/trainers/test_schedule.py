import pytest

from trainers.schedule import lr_factor


def test_warm_up_rises_to_one_and_constant_stays():
    assert [lr_factor(s, 10, "constant", 4) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_and_cosine_fall_from_one_to_nearly_nothing():
    assert lr_factor(0, 100, "linear") == 1.0 and lr_factor(99, 100, "linear") == pytest.approx(0.01)
    assert lr_factor(50, 100, "cosine") == pytest.approx(0.5) and lr_factor(99, 100, "cosine") < 0.001


def test_a_warm_up_longer_than_the_run_never_divides_by_zero():
    assert lr_factor(4, 5, "cosine", 10) == 0.5
    assert lr_factor(5, 5, "linear", 5) == 1.0
