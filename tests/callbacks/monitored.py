"""What the tests of the step monitors share: small nets, a logger that remembers, a count of the waits."""

from collections import Counter

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from ..contract.toys import QUIET


class Net(LightningModule):
    """Any layers, on a regression or a classification, with any optimizer."""

    def __init__(self, *layers, optimizer=None, classes=None):
        super().__init__()
        self.net = (
            nn.Sequential(*layers) if layers else nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        )
        self.make = optimizer or (lambda parameters: torch.optim.SGD(parameters, 0.1))
        self.classes = classes

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        return nn.functional.cross_entropy(self.net(inputs), targets)

    def configure_optimizers(self):
        return self.make(self.parameters())


class Remembering(Logger):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    name = version = ""

    def log_metrics(self, metrics, step=None):
        self.lines.append((step, dict(metrics)))

    def log_hyperparams(self, *_):
        pass

    def values(self, key):
        return [line[key] for _, line in self.lines if key in line]


def batches(count=12, *, size=8, features=6, classes=3, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count * size, features, generator=generator) * scale
    targets = torch.randint(0, classes, (count * size,), generator=generator)
    return DataLoader(TensorDataset(inputs, targets), size)


def net(*layers, kind=Net, **options):
    seed_everything(1, verbose=False)
    return kind(*layers, **options)


def fit(module, callbacks, *, data=None, epochs=1, **options):
    logger = Remembering()
    trainer = Trainer(**{**QUIET, "logger": logger, "max_epochs": epochs, "callbacks": callbacks, **options})
    trainer.fit(module, data or batches())
    return logger


class Waits(TorchFunctionMode):
    """Counts the calls that fetch a value of a tensor, for which the host has to wait."""

    FETCHING = (
        "item",
        "tolist",
        "cpu",
        "numpy",
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "nonzero",
        "__array__",
    )

    def __init__(self):
        self.calls = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        to_host = name == "to" and any(
            str(a).startswith("cpu") for a in [*args[1:], *(kwargs or {}).values()]
        )
        self.calls[name] += name in self.FETCHING or (to_host and args[0].device.type != "cpu")
        return func(*args, **(kwargs or {}))


class Scalars(TorchDispatchMode):
    """Counts, below autograd, where a tensor becomes a number."""

    def __init__(self):
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


class Counting(Callback):
    """Notes, batch by batch, how often the host had to wait."""

    def __init__(self, waits, scalars):
        self.waits, self.scalars, self.seen = waits, scalars, [0]

    def on_train_batch_end(self, *_):
        self.seen.append(self.waits.calls.total() + self.scalars.count)


def waits_by_step(monitors, module, **options):
    """Return how often the host waited for a tensor's value in each batch of a fit."""
    with Waits() as waits, Scalars() as scalars:
        counting = Counting(waits, scalars)
        fit(module, [*monitors, counting], **options)
    return [b - a for a, b in zip(counting.seen, counting.seen[1:], strict=False)]
