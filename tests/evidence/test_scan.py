import time
from math import inf

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_recipes.evidence.scan import raw_batches, scan
from lightning_recipes.utils.hashes import sample_hashes
from lightning_recipes.utils.rng import generator_states
from tests.contract.toys import Noisy, same
from tests.diagnosis.toys import Classifier, Stream, data, fit, loader, state


def scanned(given, deadline=inf, kind=Classifier, **options):
    return fit(kind, lambda trainer, _: scan(trainer, given, deadline=deadline), epochs=1, **options)[1]


def test_all_that_is_there_is_seen():
    x, y = data()
    seen = scanned(loader(shuffle=False))
    assert seen.complete
    assert seen.error is None
    assert (seen.samples, seen.broken, len(seen.batches)) == (64, [], 4)
    assert torch.equal(seen.inputs, x)
    assert torch.equal(seen.targets, y)
    assert torch.equal(torch.cat(seen.labels), y)
    assert seen.hashes == sample_hashes(x)
    assert len(set(seen.hashes)) == 64


def test_the_numbers_of_samples_that_are_not_finite():
    x, y = data()
    x[[3, 17, 40]] = torch.tensor([float("nan"), float("inf"), -float("inf")])[:, None]
    seen = scanned(DataLoader(TensorDataset(x, y), batch_size=16))
    assert seen.broken == [3, 17, 40]
    assert seen.samples == 64


def test_a_deadline_in_the_past_leaves_the_least():
    seen = scanned(loader(2, shuffle=False), deadline=0.0)
    assert not seen.complete
    assert seen.samples == 22  # eleven batches
    seen = scanned(loader(8, shuffle=False), deadline=0.0)
    assert seen.complete  # there are no more than eight


def test_batches_are_kept_up_to_512_samples_and_three_batches():
    x = torch.randn(2000, 2)
    large = DataLoader(TensorDataset(x, torch.zeros(2000).long()), batch_size=100)
    seen = scanned(large)
    assert (len(seen.batches), seen.samples, len(seen.hashes)) == (6, 2000, 2000)
    seen = scanned(DataLoader(TensorDataset(x), batch_size=1000))
    assert len(seen.batches) == 2
    assert (seen.labels, seen.targets) == ([], None)


class Failing(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        if index == 40:
            raise OSError("a broken file")
        return torch.ones(6), 0


def test_what_the_loader_raises():
    seen = scanned(DataLoader(Failing(), batch_size=16))
    assert isinstance(seen.error, OSError)
    assert not seen.complete
    assert seen.samples == 32
    assert isinstance(scanned(7).error, TypeError)


def test_several_loaders_at_once():
    seen = scanned({"a": loader(shuffle=False), "b": loader(32, shuffle=False)})
    assert seen.error is None
    assert seen.samples == 64
    assert set(seen.batches[0]) == {"a", "b"}


def of_own(**options):
    return DataLoader(TensorDataset(*data()), 16, shuffle=True, **options)


@pytest.mark.parametrize(
    "train",
    [
        loader,
        lambda: of_own(num_workers=1, persistent_workers=True),
        lambda: DataLoader(
            TensorDataset(*data()), 16, shuffle=True, generator=torch.Generator().manual_seed(2)
        ),
        lambda: DataLoader(Stream(), batch_size=16),
        lambda: [loader(), loader(8)],
    ],
    ids=["plain", "persistent workers", "generator", "stream", "several"],
)
def test_an_epoch_goes_on_as_if_nothing_was(train):
    """In its midst: at the second batch of the first epoch."""

    class Looking(Classifier):
        look = False

        def loss(self, batch):
            if self.look and self.trainer.global_step == 1 and self.trainer.training:
                seen = scan(self.trainer, self.trainer.train_dataloader, deadline=time.monotonic() + 60)
                assert seen.error is None
                assert seen.samples >= 64
            return super().loss(batch[0] if isinstance(batch[0], list) else batch)

    plain = state(fit(Looking, train=train(), validation=False)[0])
    looking = type("Looking", (Looking,), {"look": True})
    looked = state(fit(looking, train=train(), validation=False)[0])
    assert [key for key in plain if not same(plain[key], looked[key])] == []


def test_an_iteration_that_is_given_up_leaves_no_trace():
    before = generator_states()
    batches = raw_batches(DataLoader(Noisy(32), batch_size=8, shuffle=True))
    next(batches)
    np.random.rand()
    batches.close()
    assert same(before, generator_states())
