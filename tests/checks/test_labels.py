import pytest
import torch

from lightning_recipes.checks.labels import labels

TEN = torch.arange(1000) % 10


@pytest.mark.parametrize("complete", [True, False])
def test_constant_labels_fail(complete):
    found = labels(torch.full((1000,), 3), 10, complete=complete)
    assert (found.status, found.causes[0]) == ("FAIL", "constant-labels")


def test_constant_by_chance_is_no_failure():
    assert labels(torch.zeros(64), 2, complete=False).status == "INFO"


@pytest.mark.parametrize("targets", [TEN + 1, TEN - 1])
def test_labels_out_of_range_fail(targets):
    found = labels(targets, 10, complete=False)
    assert (found.status, found.causes) == ("FAIL", ("wrong-number-of-classes",))


def test_more_outputs_than_classes():
    assert labels(TEN, 1000, complete=False).causes[0] == "wrong-number-of-classes"
    assert labels(TEN, 11, complete=True).status == "WARN"
    assert labels(TEN, 11, complete=False).status == "PASS"
    assert labels(TEN, 12, num_classes=10, complete=False).status == "WARN"
    assert labels(TEN, 10, num_classes=10, complete=False).status == "PASS"
    assert labels(TEN % 2, 1, num_classes=2, complete=True).status == "PASS"


def test_soft_targets_and_ignored_ones():
    soft = torch.eye(10)[TEN] * 0.7 + 0.03
    assert labels(soft, 10, complete=True).status == "PASS"
    assert labels(soft, 12, complete=True).status == "FAIL"
    assert labels(torch.where(TEN == 0, -100, TEN), 10, complete=False).status == "PASS"
    assert labels(torch.ones(64, 10), 10, complete=True).status == "SKIP"


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_an_imbalance_of_1_to_100_does_not_alarm(classes):
    generator = torch.Generator().manual_seed(classes)
    for shape in ("one frequent", "one rare", "geometric"):
        shares = torch.ones(classes)
        if shape == "one frequent":
            shares[0] = 100
        elif shape == "one rare":
            shares[:-1] = 100
        else:
            shares = 100 ** (1 - torch.arange(classes) / (classes - 1))
        for samples in (32, 128, 512) * 30:
            targets = shares.multinomial(samples, replacement=True, generator=generator)
            assert labels(targets, classes, complete=False).status in ("PASS", "INFO")


def test_a_strong_imbalance_is_told():
    targets = torch.cat([torch.zeros(300), torch.ones(10)])
    assert labels(targets, 2, complete=True).causes == ("class-imbalance",)
