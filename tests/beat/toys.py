"""A weight that is the number of optimizer steps, so that every fault is an exact number."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from tests.contract import toys as contract

QUIET = {**contract.QUIET, "num_sanity_val_steps": 0}
STEPS = 4  # batches an epoch

both = pytest.mark.parametrize(
    "side", [pytest.param("lightning", marks=pytest.mark.xfail(strict=True)), "ours"]
)
"""Lightning's class must fail the test, and ours pass it."""


class Counter(LightningModule):
    """SGD adds 1 to `w` a step; what validation, test and predict see is kept."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.began, self.seen, self.tested = [], [], []

    def training_step(self, batch, batch_idx):
        if batch_idx == 0:
            self.began.append(float(self.w))
        return -self.w

    def validation_step(self, batch, batch_idx):
        self.seen.append(float(self.w))
        self.log("val/w", self.w.detach())

    def test_step(self, batch, batch_idx):
        self.tested.append(float(self.w))

    def predict_step(self, batch, batch_idx):
        return float(self.w)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


class TwoOptimizers(Counter):
    """Both are stepped at each batch, by hand."""

    def __init__(self):
        super().__init__()
        self.v = nn.Parameter(torch.zeros(()))
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(-self.w - self.v)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD([self.w], 1.0), torch.optim.SGD([self.v], 1.0)]


def batches(size=STEPS):
    return DataLoader(torch.zeros(size, 1), batch_size=1)


def trainer(*callbacks, epochs=2, **options):
    return Trainer(**{**QUIET, "max_epochs": epochs, "callbacks": list(callbacks), **options})


def fit(module, *callbacks, path=None, **options):
    made = trainer(*callbacks, **options)
    made.fit(module, batches(), batches(1), ckpt_path=path)
    return made
