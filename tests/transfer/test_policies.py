import re
from typing import get_args

import pytest

from lightning_recipes.transfer import PolicyName, first_trained_stage, probing_epochs
from lightning_recipes.utils.errors import UserError


def course(policy, **settings):
    return [first_trained_stage(policy, epoch, n_stages=4, **settings) for epoch in range(8)]


@pytest.mark.parametrize(
    ("policy", "settings", "expected"),
    [
        ("scratch", {"frozen": 2}, [0] * 8),
        ("linear_probe", {"frozen": 2}, [4] * 8),
        ("finetune", {}, [0] * 8),
        ("finetune", {"frozen": 3}, [3] * 8),
        ("probe_then_finetune", {"probe_epochs": 0}, [0] * 8),
        ("probe_then_finetune", {"probe_epochs": 3, "frozen": 1}, [4, 4, 4, 1, 1, 1, 1, 1]),
        ("gradual_unfreeze", {}, [4, 3, 2, 1, 0, 0, 0, 0]),
        ("gradual_unfreeze", {"frozen": 2}, [4, 3, 2, 2, 2, 2, 2, 2]),
        ("gradual_unfreeze", {"unfreeze_every": 3}, [4, 4, 4, 3, 3, 3, 2, 2]),
    ],
)
def test_what_learns_from_epoch_to_epoch(policy, settings, expected):
    assert course(policy, **settings) == expected


@pytest.mark.parametrize("policy", get_args(PolicyName))
def test_what_has_begun_to_learn_goes_on(policy):
    stages = course(policy, frozen=1, probe_epochs=2)
    assert stages == sorted(stages, reverse=True)
    assert all(0 <= stage <= 4 for stage in stages)


def test_an_unknown_policy_is_named_with_the_known():
    with pytest.raises(UserError, match=r"one of scratch, .*, got 'lp_ft'"):
        first_trained_stage("lp_ft", 0, n_stages=1)


@pytest.mark.parametrize(
    ("probe_epochs", "max_epochs", "expected"),
    [
        (0, 10, 0),
        (3, 10, 3),
        (3.0, None, 3),
        (1, 10, 1),
        (0.3, 10, 3),
        (0.3, 15, 4),
        (0.01, 10, 1),
        (0.99, 1, 1),
        (0.9, 3, 2),
        (0.3, 2, 1),
    ],
)
def test_a_probe_is_so_many_epochs_or_a_part_of_the_run(probe_epochs, max_epochs, expected):
    assert probing_epochs(probe_epochs, max_epochs) == expected


@pytest.mark.parametrize(
    ("probe_epochs", "max_epochs", "says"),
    [
        (0.3, None, "`probe_epochs: 0.3` is a fraction of the run, which has no `max_epochs`"),
        (0.3, -1, "which has no `max_epochs`"),
        (-1, 10, "a fraction in (0, 1), got -1"),
        (2.5, 10, "a fraction in (0, 1), got 2.5"),
        (float("nan"), 10, "a fraction in (0, 1), got nan"),
        (float("inf"), 10, "a fraction in (0, 1), got inf"),
    ],
)
def test_a_probe_that_cannot_be(probe_epochs, max_epochs, says):
    with pytest.raises(UserError, match=re.escape(says)):
        probing_epochs(probe_epochs, max_epochs)
