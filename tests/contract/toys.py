"""Small modules in which every fault of a callback is an exact number, and a loader that can be resumed."""

import random

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

from lightning_recipes.datamodules.batches import BatchPlan, MemoryLoader
from lightning_recipes.preprocessing import Normalization, Preprocessing

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "devices": 1,
}


class Toy(LightningModule):
    """A net with BatchNorm (buffers) and dropout (draws), and a weight that counts the optimizer steps."""

    def __init__(self, *extra):
        super().__init__()
        extra = extra or (nn.BatchNorm1d(4), nn.Dropout(0.2))
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), *extra)
        self.steps = nn.Parameter(torch.zeros(()))
        self.loss = {name: MeanMetric() for name in ("train", "val")}
        self.train_loss, self.val_loss = self.loss["train"], self.loss["val"]

    def forward(self, images):
        return self.net(images)

    def _step(self, batch, stage):
        images, targets = batch
        loss = nn.functional.cross_entropy(self(images), targets)
        self.loss[stage].update(loss.detach(), len(images))
        self.log(f"{stage}/loss", self.loss[stage], on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train") - self.steps

    def validation_step(self, batch, batch_idx):
        self._step(batch, "val")

    def test_step(self, batch, batch_idx):
        self.log("test/out", self.net(batch[0]).sum())

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(
            [
                {"params": self.net.parameters(), "lr": 0.1, "momentum": 0.9},
                {"params": [self.steps], "lr": 1.0},
            ]
        )


class Manual(Toy):
    """Two optimizers, stepped by hand: the second on every other batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.Adam(self.net.parameters(), 0.01), torch.optim.SGD([self.steps], 1.0)]

    def training_step(self, batch, batch_idx):
        loss = self._step(batch, "train") - self.steps
        first, second = self.optimizers()
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(loss)
        first.step()
        if batch_idx % 2:
            second.step()


class Skipping(Toy):
    """Leaves out every third optimizer step, as a gradient scaler does after an overflow."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        if batch_idx % 3 == 2:
            optimizer_closure()
        else:
            optimizer.step(closure=optimizer_closure)


HOOKS = (
    "setup",
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_train_end",
    "on_fit_end",
)


class Breaking(Toy):
    """Raises in a hook: in the second epoch where the hook runs that often."""

    def __init__(self, hook, error):
        super().__init__()
        self.hook, self.error = hook, error


def _breaking(name):
    def hook(self, *args, **kwargs):
        once = name in ("setup", "on_fit_start", "on_train_start", "on_train_end", "on_fit_end")
        if self.hook == name and (once or self.current_epoch == 1):
            raise self.error

    return hook


for _name in HOOKS:
    setattr(Breaking, _name, _breaking(_name))


def loader(size=32, *, train, batch_size=8, seed=0, world=1, rank=0):
    """Return batches of random images whose label is what their brightest quarter says."""
    images = torch.randint(
        0, 256, (size, 1, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    targets = images.view(size, 4, 4).float().mean(2).argmax(1)
    plan = BatchPlan(size, batch_size, shuffle=train, seed=seed, world_size=world, rank=rank)
    return MemoryLoader(images, targets, plan, Preprocessing(1, 4, 1.0, Normalization((0.5,), (0.3,))))


class Noisy(Dataset):
    """Images with noise that is drawn anew whenever one is read, from torch, NumPy and Python."""

    def __init__(self, size):
        self.images = torch.randn(size, 1, 4, 4, generator=torch.Generator().manual_seed(size))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        noise = torch.rand(()) + np.random.rand() + random.random()
        return self.images[index] + noise.float(), index % 4


def noisy_loader(workers=0):
    """Return loaders whose order and noise come from the process's own random numbers."""
    train = DataLoader(Noisy(32), batch_size=8, shuffle=True, num_workers=workers)
    return train, DataLoader(Noisy(16), batch_size=8)


def fit(module, callbacks=(), *, epochs=3, path=None, data_seed=0, loaders=None, **options):
    trainer = Trainer(**{**QUIET, "max_epochs": epochs, "callbacks": list(callbacks), **options})
    ours = loader(train=True, seed=data_seed), loader(16, train=False, seed=data_seed + 1)
    train, val = loaders or ours
    seed_everything(4, verbose=False)
    trainer.fit(module, train, val, ckpt_path=path)
    return trainer


def toy(kind=Toy, *arguments):
    seed_everything(3, verbose=False)
    return kind(*arguments)


def same(first, second):
    """Whether two states are equal to the bit, NaN included."""
    return _alike(first, second, lambda a, b: torch.equal(a.nan_to_num(7e7), b.nan_to_num(7e7)))


def close(first, second):
    """Whether two states are equal but for the order of sums."""
    return _alike(first, second, lambda a, b: torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True))


def _alike(first, second, equal):
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.shape == second.shape and equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_alike(first[k], second[k], equal) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(
            _alike(a, b, equal) for a, b in zip(first, second, strict=True)
        )
    if isinstance(first, float) and isinstance(second, float):
        return _alike(
            torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64), equal
        )
    return first == second
