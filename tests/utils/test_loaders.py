import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from lightning_recipes.utils.loaders import generators_of, independent, undisturbed
from tests.contract.toys import loader as fast_loader

DATA = torch.arange(12.0)


def shuffled(**options):
    return DataLoader(DATA, batch_size=2, shuffle=True, **options)


def listed(loader):
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iteration_goes_on_where_it_was(workers):
    """Persistent workers have one iterator for all: a second one would cut the first off."""
    options = {"num_workers": workers, "persistent_workers": bool(workers)}
    torch.manual_seed(0)
    expected = listed(shuffled(**options))
    loader = shuffled(**options)
    torch.manual_seed(0)
    iterator = iter(loader)
    seen = [next(iterator).tolist(), next(iterator).tolist()]
    with undisturbed(loader) as other:
        assert sorted(number for batch in listed(other) for number in batch) == DATA.tolist()
    seen += [batch.tolist() for batch in iterator]
    assert seen == expected


def test_our_loaders_go_on_where_they_were():
    def listed(iterator):
        return [[tensor.clone() for tensor in batch] for batch in iterator]

    expected, loader = listed(fast_loader(32, train=True)), fast_loader(32, train=True)
    iterator = iter(loader)
    seen = [next(iterator)]
    with undisturbed(loader) as other:
        assert len(listed(other)) == len(expected)
    seen += listed(iterator)
    torch.testing.assert_close(seen, expected)


def test_no_random_number_is_used_up():
    generator = torch.Generator().manual_seed(1)
    loader = shuffled(generator=generator)
    before, of_torch = generator.get_state(), torch.get_rng_state()
    with undisturbed(loader) as other:
        listed(other)
        torch.rand(3)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), of_torch)


def test_several_loaders_at_once():
    loaders = {"first": shuffled(), "second": [shuffled(), DATA]}
    twins = independent(loaders)
    assert twins["first"] is not loaders["first"]
    assert twins["first"].dataset is DATA
    assert twins["second"][1] is DATA


def test_generators_are_found_wherever_they_are():
    first, second, third = (torch.Generator() for _ in range(3))
    in_batch_sampler = BatchSampler(RandomSampler(DATA, generator=second), 2, drop_last=False)
    loaders = [
        shuffled(generator=first),
        DataLoader(DATA, batch_sampler=in_batch_sampler),
        {"deep": DataLoader(DATA, sampler=RandomSampler(DATA, generator=third))},
    ]
    assert [id(each) for each in generators_of(loaders)] == [id(first), id(second), id(third)]
