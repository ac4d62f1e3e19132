import pytest
import torch

from lightning_recipes.checks.sorted_data import sorted_data


def test_sorted_labels_fail():
    batches = list(torch.arange(10).repeat_interleave(32).split(32))
    found = sorted_data(batches)
    assert (found.status, found.causes) == ("FAIL", ("unshuffled-data",))


def test_locally_sorted_labels_fail():
    labels = torch.cat([torch.randperm(10).repeat_interleave(8) for _ in range(4)])  # runs of 8
    assert sorted_data(labels.split(32)[:2] + labels.split(32)[:2] * 4).status == "FAIL"


def test_one_label_in_all_batches_needs_the_pool():
    batches = [torch.zeros(32)] * 10
    assert sorted_data(batches).status == "SKIP"
    assert sorted_data(batches, pool=torch.arange(1000) % 10).status == "FAIL"


def test_balanced_batches_and_samplers_are_fine():
    assert sorted_data([torch.arange(10)] * 10).status == "PASS"
    assert sorted_data([torch.zeros(8), torch.ones(8)] * 5, sampled=True).status == "SKIP"


@pytest.mark.parametrize(("classes", "size"), [(2, 4), (2, 32), (10, 8), (10, 64), (100, 32), (1000, 32)])
def test_p_is_never_too_small_for_shuffled_labels(classes, size):
    generator = torch.Generator().manual_seed(classes + size)
    shares = 100 ** (-torch.arange(classes) / (classes - 1))
    p = []
    for _ in range(100):
        batches = shares.multinomial(10 * size, replacement=True, generator=generator).split(size)
        found = sorted_data(batches)
        p.append(found.evidence.get("p", 1.0))
        assert found.status != "FAIL"
    p = torch.tensor(p)
    assert (p < 0.1).double().mean() <= 0.2  # a bound: rarer than uniform, but for noise


def test_probability_that_a_batch_holds_a_label():
    from lightning_recipes.checks.sorted_data import _probability_held

    held = _probability_held(torch.tensor([1, 3]), 2)  # of 4 samples 2 are drawn
    torch.testing.assert_close(held, torch.tensor([0.5, 1.0], dtype=torch.double))
