from math import inf, nan

import pytest

from lightning_recipes.checks.update_ratio import check_update_ratio


def steady(value, steps=20):
    return list(range(1, steps + 1)), [[value, value, value]] * steps


@pytest.mark.parametrize(
    ("value", "status", "cause"),
    [
        (1e-3, "PASS", None),
        (1e-2, "PASS", None),
        (0.05, "INFO", "learning-rate-too-high"),
        (0.2, "WARN", "learning-rate-too-high"),
        (1e-6, "INFO", "learning-rate-too-low"),
        (0.0, "WARN", "missing-step"),
    ],
)
def test_a_steady_ratio(value, status, cause):
    finding = check_update_ratio(*steady(value))
    assert (finding.status, next(iter(finding.causes), None)) == (status, cause)
    assert finding.evidence["median"] == value
    assert "1e-3 is usual" in finding.message


def test_never_a_failure():
    for value in (1e6, inf):
        assert check_update_ratio(*steady(value)).status == "WARN"


def test_a_rate_that_the_weights_have_grown_to_shows_in_the_first_steps():
    steps = [1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 60]
    ratios = [[0.9]] * 5 + [[4e-3]] * 6
    finding = check_update_ratio(steps, ratios)
    assert (finding.status, finding.evidence["median_of_first_steps"]) == ("WARN", 0.9)
    assert finding.evidence["median"] == pytest.approx(4e-3)


def test_warm_up_and_decay_do_not_count():
    steps = list(range(10, 310, 10))
    rates = [1e-6] * 10 + [0.1] * 10 + [1e-7] * 10
    ratios = [[rate * 1e-2] for rate in rates]
    assert check_update_ratio(steps, ratios, rates=rates).evidence["median"] == pytest.approx(1e-3)
    assert check_update_ratio(steps, ratios, rates=rates).status == "PASS"
    assert check_update_ratio(steps, ratios).evidence["median"] == pytest.approx(1e-8)


def test_what_was_left_out_is_no_zero():
    finding = check_update_ratio([1, 2, 3], [[nan, 1e-3], [nan, nan], [nan, 1e-3]], layers=["stem", "head"])
    assert finding.status == "PASS"
    assert finding.evidence["steps"] == 2
    assert finding.evidence["fastest_layer"] == finding.evidence["slowest_layer"] == "head"


def test_the_layers_at_either_end_are_named():
    finding = check_update_ratio([1, 2], [[1e-4, 1e-3, 1e-2]] * 2, layers=["a", "b", "c"])
    assert (finding.evidence["slowest_layer"], finding.evidence["fastest_layer"]) == ("a", "c")


def test_the_step_at_which_weights_broke_is_named():
    finding = check_update_ratio([5, 10, 20, 30], [[1e-2], [0.5], [inf], [inf]])
    assert finding.status == "WARN"
    assert finding.evidence["first_non_finite_step"] == 20
    assert "no longer finite at step 20" in finding.message


def test_nothing_measured():
    assert check_update_ratio([], []).status == "SKIP"
    assert check_update_ratio([1], [[nan]]).status == "SKIP"
