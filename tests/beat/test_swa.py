"""Stochastic weight averaging: Lightning's `StochasticWeightAveraging`, and `SWA`."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_recipes import SWA

from .toys import STEPS, Counter, batches, both, fit, trainer


def swa(side, start=2):
    """Return the callback of a side; neither changes the rate of 1."""
    if side == "lightning":
        return StochasticWeightAveraging(swa_lrs=1.0, swa_epoch_start=start, annealing_epochs=1)
    return SWA(start, lr=1.0)


class Normed(Counter):
    """With BatchNorm over data whose mean is 3 and whose variance is 4."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.steps = 0

    def forward(self, batch):
        return self.norm(batch * (self.w.detach() * 0 + 1))

    def training_step(self, batch, batch_idx):
        self.steps += 1
        self(batch)
        return super().training_step(batch, batch_idx)


def data():
    return DataLoader(torch.tensor([[1.0], [5.0]]).repeat(STEPS, 1), batch_size=2)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.tensor([[1.0], [5.0]]).repeat(STEPS, 1))


class StopAfter(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.should_stop = True


@both
def test_the_last_epoch_counts(side):
    module = Counter()
    fit(module, swa(side), epochs=4)
    assert float(module.w) == (12 + 16) / 2


@both
def test_the_average_is_what_is_validated(side):
    module = Counter()
    fit(module, swa(side), epochs=4)
    assert module.seen == [4.0, 8.0, 12.0, 14.0]


@both
def test_an_early_stop_keeps_the_average(side):
    module = Counter()
    fit(module, swa(side), StopAfter(3), epochs=10)
    assert float(module.w) == (12 + 16) / 2


@both
def test_batch_norm_costs_no_training_step(side):
    module = Normed()
    trainer(swa(side), epochs=4).fit(module, data(), data())
    assert module.steps == 4 * STEPS
    assert float(module.norm.running_mean) == pytest.approx(3.0)
    assert float(module.norm.running_var) == pytest.approx(8.0)  # unbiased, of two values
    assert module.norm.momentum == 0.1


@both
def test_batch_norm_with_an_iterable_data_set(side):
    module = Normed()
    trainer(swa(side), epochs=4).fit(module, DataLoader(Stream(), batch_size=2), data())
    assert float(module.w) == (12 + 16) / 2
    assert float(module.norm.running_mean) == pytest.approx(3.0)


class Interrupted(Normed):
    """Ctrl-C in the pass that measures BatchNorm's statistics."""

    def forward(self, batch):
        if self.norm.momentum is None:
            raise RuntimeError("interrupted")
        return super().forward(batch)


@both
def test_an_interrupted_refresh_leaves_batch_norm_as_it_was(side):
    module = Interrupted()
    with pytest.raises(RuntimeError, match="interrupted"):
        trainer(swa(side), epochs=4).fit(module, data(), data())
    assert module.norm.momentum == 0.1
    assert float(module.w) in (12.0, 16.0)  # raw weights


class Scheduled(Counter):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)]


@both
def test_nothing_of_the_trainer_is_changed(side):
    used, module, kinds = trainer(swa(side), epochs=4), Scheduled(), []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            kinds.append((type(trainer.lr_scheduler_configs[0].scheduler).__name__, trainer.max_epochs))

    used.callbacks.append(Look())
    used.fit(module, batches(), batches(1))
    assert kinds == [("ConstantLR", 4)] * 4
