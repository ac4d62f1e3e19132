"""Small modules of many styles, and a fit that can be looked into at its first batch."""

import random

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_recipes.diagnosis.first_steps import after_first_steps
from lightning_recipes.evidence.first_steps import FirstSteps
from lightning_recipes.utils.rng import generator_states
from tests.contract.toys import QUIET


def data(samples=64, classes=3, size=6):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(samples, size, generator=generator)
    return inputs, inputs[:, :classes].argmax(1)


def loader(batch_size=16, *, shuffle=True, **options):
    return DataLoader(TensorDataset(*data(**options)), batch_size=batch_size, shuffle=shuffle)


def batches():
    """Return the batches of four without a loader, which would draw a random number."""
    return [[x, y] for x, y in zip(*(part.split(16) for part in data()), strict=True)]


class Classifier(LightningModule):
    """BatchNorm (buffers), dropout (draws), momentum (state) and a schedule by the step."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
        )
        self.called = []

    def loss(self, batch):
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=40)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Draws(Classifier):
    """Draws of every generator within the step."""

    def loss(self, batch):
        noise = torch.rand(()) + np.random.rand() + random.random()
        return super().loss([batch[0] + 0.01 * noise.float(), batch[1]])


class ByHand(Classifier):
    """Two optimizers, stepped by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(self.loss(batch))
        first.step()
        second.step()

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.net[:2].parameters(), 1e-2),
            torch.optim.SGD(self.net[2:].parameters(), 0.1),
        ]


class Regression(Classifier):
    def loss(self, batch):
        return functional.mse_loss(self.net(batch[0])[:, 0], batch[0].sum(1))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


class Gan(LightningModule):
    """The generator's backward pass adds to the discriminator's gradients, which are cleared later."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
        self.discriminator = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        real = batch[0]
        g, d = self.optimizers()
        loss = functional.binary_cross_entropy_with_logits
        fake = self.generator(torch.randn(len(real), 4))
        g.zero_grad()
        self.manual_backward(loss(self.discriminator(fake), torch.ones(len(real), 1)))
        g.step()
        d.zero_grad()
        right = loss(self.discriminator(real), torch.ones(len(real), 1))
        wrong = loss(self.discriminator(fake.detach()), torch.zeros(len(real), 1))
        self.manual_backward(right + wrong)
        d.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), 1e-2) for part in (self.generator, self.discriminator)]


class Mapping(Classifier):
    def training_step(self, batch, batch_idx):
        return {"loss": self.loss(batch), "more": batch_idx}


class Nothing(Classifier):
    """Leaves batches out."""

    def training_step(self, batch, batch_idx):
        return None


class Sometimes(Classifier):
    """Leaves every other batch out."""

    def training_step(self, batch, batch_idx):
        return None if batch_idx % 2 else super().training_step(batch, batch_idx)


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*data(), strict=True)


class Once(Callback):
    """Does something at the first batch of a fit."""

    def __init__(self, act):
        self.act = act
        self.result = None
        self.done = False

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.done:
            self.done = True
            self.result = self.act(trainer, pl_module)


def fit(kind, act=None, *, train=None, validation=True, epochs=2, seed=3, **options):
    """Return the trainer after a fit, and what `act(trainer, module)` returned at the first batch."""
    seed_everything(seed, verbose=False)
    module = kind()
    once = Once(act or (lambda *_: None))
    trainer = Trainer(**{**QUIET, "max_epochs": epochs, "num_sanity_val_steps": 0, **options})
    trainer.callbacks.append(once)
    validation = loader(shuffle=False) if validation else None
    trainer.fit(module, loader() if train is None else train, validation)
    return trainer, once.result


def state(trainer):
    """Return all that a fit leaves behind."""
    module = trainer.lightning_module
    return {
        "weights": {name: tensor.clone() for name, tensor in module.state_dict().items()},
        "gradients": {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [
            {k: v for k, v in config.scheduler.state_dict().items() if not callable(v)}
            for config in trainer.lr_scheduler_configs
        ],
        "generators": generator_states(),
        "steps": trainer.global_step,
        "metrics": {name: value.clone() for name, value in trainer.logged_metrics.items()},
    }


def late_stages(examination):
    """Return the stages that come after the first steps, of which nothing was seen."""
    return after_first_steps(FirstSteps(examination.trainer.optimizers), [2.0, 1.0] * 20, 40)
