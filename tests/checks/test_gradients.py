from math import nan

import pytest

from lightning_recipes.checks.gradients import check_clipping, check_finite_gradients, check_vanishing


def test_finite():
    assert check_finite_gradients(0).status == "PASS"


def test_the_layer_in_which_it_arose_is_the_first_in_backward_order():
    finding = check_finite_gradients(2, first_step=9, layers=["c", "b", "a"], n_layers=5, last="e")
    assert finding.status == "FAIL"
    assert finding.evidence["layer"] == "c"
    assert "in 2 steps, first at step 9 in 3 of 5 layers: they arose in c" in finding.message


@pytest.mark.parametrize(
    ("step", "cause"),
    [(1, "non-finite-input"), (2, "learning-rate-too-high"), (500, "learning-rate-too-high")],
)
def test_from_the_last_layer_on_it_came_from_the_loss(step, cause):
    finding = check_finite_gradients(1, first_step=step, layers=["e", "d"], n_layers=2, last="e")
    assert finding.causes[0] == cause
    assert "from the loss or the forward pass" in finding.message
    assert "in 1 step," in finding.message


STEPS = list(range(10, 110, 10))


@pytest.mark.parametrize(
    ("ratios", "updates", "status"),
    [
        ([1e-6] * 10, [1e-7] * 10, "WARN"),
        ([0.0] * 10, [0.0] * 10, "WARN"),
        ([1e-6] * 10, [1e-3] * 10, "INFO"),  # Adam makes up for it
        ([2e-5] * 10, [1e-7] * 10, "PASS"),
        ([0.5] * 10, [1e-7] * 10, "PASS"),  # a rate near zero is no vanishing gradient
        ([1.0] * 4 + [1e-6] * 3 + [1.0] * 3, [1e-7] * 10, "WARN"),
        ([1.0] * 4 + [1e-6] * 2 + [1.0] * 4, [1e-7] * 10, "PASS"),  # too short
        ([nan] * 10, [nan] * 10, "SKIP"),
    ],
)
def test_vanishing(ratios, updates, status):
    finding = check_vanishing(STEPS, ratios, updates)
    assert finding.status == status
    assert bool(finding.causes) is (status in ("WARN", "INFO"))


def test_three_measurements_within_less_than_twenty_steps_are_too_few():
    assert check_vanishing([1, 2, 3], [1e-9] * 3, [1e-9] * 3).status == "PASS"
    assert check_vanishing([1, 11, 21], [1e-9] * 3, [1e-9] * 3).status == "WARN"
    assert check_vanishing([1, 41], [1e-9] * 2, [1e-9] * 2).status == "PASS"


@pytest.mark.parametrize(
    ("coefficient", "status"), [(1.0, "PASS"), (0.5, "PASS"), (0.011, "PASS"), (0.009, "WARN"), (0.0, "WARN")]
)
def test_clipping(coefficient, status):
    steps = list(range(10, 210, 10))
    assert check_clipping(steps, [coefficient] * 20, [0.1] * 20).status == status


def test_the_warm_up_does_not_count():
    steps = list(range(10, 310, 10))
    rates = [0.01 * number for number in range(1, 16)] + [0.15] * 15
    assert check_clipping(steps, [1e-3] * 15 + [1.0] * 15, rates).evidence["steps"] == 16
    assert check_clipping(steps, [1e-3] * 15 + [1.0] * 15, rates).status == "PASS"
    assert check_clipping(steps, [1.0] * 14 + [1e-3] * 16, rates).status == "WARN"


def test_clipping_for_less_than_a_hundred_steps_is_not_judged():
    assert check_clipping([10, 109], [1e-3] * 2, [0.1] * 2).status == "INFO"
    assert check_clipping([10, 110], [1e-3] * 2, [0.1] * 2).status == "WARN"


def test_clipping_of_which_nothing_is_known():
    assert check_clipping(STEPS, [nan] * 10, [0.1] * 10).status == "SKIP"
    assert check_clipping(STEPS, [1e-3] * 10, [nan] * 10).status == "INFO"  # 90 steps
