import torch

from lightning_recipes.checks.duplicates import overlapping_indices, validation_in_training
from lightning_recipes.utils.hashes import sample_hashes


def test_a_split_of_different_samples_passes_and_a_leak_does_not():
    images = torch.rand(300, 1, 4, 4)
    train, val = sample_hashes(images[:200]), sample_hashes(images[200:])
    assert validation_in_training(train, val).status == "PASS"
    assert validation_in_training(train, val + train[:10]).status == "WARN"
    assert validation_in_training(train + val, val).status == "FAIL"


def test_tables_of_few_values_have_natural_twins():
    table = torch.randint(0, 3, (1000, 4))  # 81 different rows
    train, val = sample_hashes(table[:800]), sample_hashes(table[800:])
    found = validation_in_training(train, val)
    assert found.evidence["share"] > 0.9
    assert found.status == "PASS"


def test_both_zeros_are_the_same_sample():
    assert sample_hashes(torch.tensor([[0.0]])) == sample_hashes(torch.tensor([[-0.0]]))


def test_overlapping_indices():
    assert overlapping_indices(range(90), range(90, 100)).status == "PASS"
    assert overlapping_indices(range(91), range(90, 100)).status == "WARN"
    assert overlapping_indices(range(100), range(90, 100)).status == "FAIL"
    assert overlapping_indices([], [1]).status == "SKIP"
