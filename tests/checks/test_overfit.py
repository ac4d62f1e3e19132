from math import nan

import pytest

from lightning_recipes.checks.causes import CAUSES
from lightning_recipes.checks.overfit import SWAPS, Attempts, Learned, overfit

LEARNED = Learned(2.3, 0.01, accuracy=1.0, steps=40)
STUCK = Learned(2.3, 2.3, accuracy=0.1, steps=150)
RISING = Learned(2.3, 9.0, accuracy=0.1, steps=150)


@pytest.mark.parametrize(
    ("learned", "passed"),
    [
        (LEARNED, True),
        (STUCK, False),
        (RISING, False),
        (Learned(2.3, 0.11, accuracy=1.0), True),
        (Learned(2.3, 0.12, accuracy=1.0), False),
        (Learned(2.3, 0.01, accuracy=0.99), False),
        (Learned(2.3, 0.01), True),
        (Learned(2.3, 0.6, floor=0.5, accuracy=1.0), False),
        (Learned(2.3, 0.58, floor=0.5, accuracy=1.0), True),
        (Learned(2.3, 0.6, accuracy=1.0, slope=0.04), True),
        (Learned(2.3, 0.6, slope=0.04), True),
        (Learned(2.3, 0.6, accuracy=0.9, slope=0.0), False),
        (Learned(2.3, 0.6, accuracy=1.0, slope=nan), False),
        (Learned(0.5, 0.5, floor=0.5, accuracy=1.0), True),
        (Learned(0.5, 0.5, floor=0.5, accuracy=0.5), False),
        (Learned(2.3, nan, accuracy=1.0), False),
        (Learned(2.3, 0.01, accuracy=1.0, error="raised"), False),
        (Learned(-1.0, -50.0, accuracy=0.0), False),
    ],
)
def test_what_counts_as_learned(learned, passed):
    assert learned.passed is passed


def test_the_share_that_is_left():
    assert Learned(2.0, 1.0).share == 0.5
    assert Learned(2.0, 1.0, floor=0.5).share == pytest.approx(1 / 3)
    assert Learned(1.0, 1.0, floor=1.0).share == 0


def test_only_the_own_optimizer_fails():
    found = overfit(Attempts(STUCK, LEARNED))
    assert (found.status, found.causes[0]) == ("WARN", "optimizer-settings")
    slow = Learned(2.3, 1.0, accuracy=0.8, steps=150, improving=True)
    assert overfit(Attempts(slow, LEARNED)).status == "INFO"
    assert overfit(Attempts(LEARNED, STUCK)).status == "PASS"


@pytest.mark.parametrize("name", SWAPS)
def test_the_swap_that_repairs_is_named(name):
    swaps = dict.fromkeys(SWAPS, STUCK) | {name: LEARNED}
    found = overfit(Attempts(STUCK, STUCK, swaps))
    assert found.status == "FAIL"
    assert found.causes == SWAPS[name]
    assert [key for key, result in found.evidence["swaps"].items() if result["passed"]] == [name]
    assert set(SWAPS[name]) <= set(CAUSES)


def test_nothing_repairs():
    found = overfit(Attempts(STUCK, STUCK, dict.fromkeys(SWAPS, STUCK)))
    assert found.status == "FAIL"
    assert found.causes[0] == "wrong-loss"
    slow = Learned(2.3, 1.5, accuracy=0.4, steps=150, improving=True)
    assert overfit(Attempts(STUCK, slow)).status == "INFO"


def test_suspects_come_first():
    found = overfit(Attempts(STUCK, STUCK, {"loss": LEARNED}), ["dead-relu", "wrong-loss"])
    assert found.causes[:3] == ("dead-relu", "wrong-loss", "loss-sign-flipped")
    assert len(set(found.causes)) == len(found.causes)


def test_no_time_is_no_fault():
    cut = Learned(2.3, 2.0, accuracy=0.1, steps=4, cut_off=True, improving=True)
    assert overfit(Attempts(cut, cut)).status == "SKIP"
    assert overfit(Attempts(STUCK, cut)).status == "SKIP"
    assert overfit(Attempts(cut, LEARNED)).status in ("WARN", "INFO", "SKIP")


def test_the_evidence_is_plain_data():
    found = overfit(Attempts(STUCK, RISING, {"loss": STUCK}, samples=7, note="smaller")).to_dict()
    assert found["evidence"]["samples"] == 7
    assert found["evidence"]["own"]["last"] == 2.3
    assert found["evidence"]["adam"]["passed"] is False
    assert found["evidence"]["own"]["slope"] == "nan"
