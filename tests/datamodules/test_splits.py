import pytest
import torch

from lightning_recipes.datamodules.splits import balanced_weights, holdout, kfold, limit_per_class
from lightning_recipes.utils.errors import UserError

NAMES = ["a", "b", "c"]
TARGETS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
HOLD = {"seed": 0, "name": "val_fraction", "class_names": NAMES}


def test_holdout_is_a_stratified_partition():
    kept, held = holdout(TARGETS, 0.2, **HOLD)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(100))
    assert TARGETS[held].bincount().tolist() == [12, 6, 2]


def test_the_same_seed_gives_the_same_split_everywhere():
    # frozen: drawn once with seed 0, to be found again on any machine and version
    _, held = holdout(TARGETS, 0.1, **HOLD)
    assert held.tolist() == [0, 3, 44, 47, 53, 55, 64, 65, 81, 94]
    assert holdout(TARGETS, 0.1, **{**HOLD, "seed": 1})[1].tolist() != held.tolist()


def test_folds_partition_and_are_stratified():
    parts = [kfold(TARGETS, fold, 5, seed=0, class_names=NAMES) for fold in range(5)]
    assert sorted(i for _, val in parts for i in val.tolist()) == list(range(100))
    for train, val in parts:
        assert not set(train.tolist()) & set(val.tolist())
        assert TARGETS[val].bincount().tolist() == [12, 6, 2]


def test_limits_are_nested_and_exact():
    few, more = limit_per_class(TARGETS, 3, seed=0), limit_per_class(TARGETS, 20, seed=0)
    assert TARGETS[few].bincount().tolist() == [3, 3, 3]
    assert TARGETS[more].bincount().tolist() == [20, 20, 10]
    assert set(few.tolist()) < set(more.tolist())


def test_balanced_weights_give_each_class_the_same_share():
    weights = balanced_weights(TARGETS)
    assert torch.stack([weights[c == TARGETS].sum() for c in range(3)]).tolist() == pytest.approx([1, 1, 1])


def test_multi_label_targets_are_split_at_random():
    targets = torch.zeros(40, 3)
    kept, held = holdout(targets, 0.25, **HOLD)
    assert (len(kept), len(held)) == (30, 10)
    assert len(kfold(targets, 0, 4, seed=0, class_names=NAMES)[1]) == 10


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: holdout(TARGETS, 1.5, **HOLD), "between 0 and 1, got 1.5"),
        (
            lambda: holdout(TARGETS, 0.01, **HOLD),
            "holds out 1, but each part needs one for each of the 3 classes",
        ),
        (
            lambda: holdout(TARGETS[:61], 0.2, **HOLD),
            r"at least 2 images of each class, got fewer of b \(1\), c \(0\)",
        ),
        (lambda: kfold(TARGETS, 5, 5, seed=0, class_names=NAMES), r"`fold` must lie in 0..4 .* got 5"),
        (lambda: kfold(TARGETS, 0, 1, seed=0, class_names=NAMES), "`folds` must be at least 2, got 1"),
        (
            lambda: kfold(TARGETS, 0, 11, seed=0, class_names=NAMES),
            r"at least 11 images .* fewer of c \(10\)",
        ),
        (lambda: limit_per_class(TARGETS, 0, seed=0), "at least 1, got 0"),
        (lambda: limit_per_class(torch.zeros(4, 2), 1, seed=0), "multi-label"),
        (lambda: balanced_weights(torch.zeros(4, 2)), "multi-label"),
    ],
)
def test_wrong_arguments(call, says):
    with pytest.raises(UserError, match=says):
        call()
