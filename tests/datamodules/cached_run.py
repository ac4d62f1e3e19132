"""A linear probe on cached features, also on two processes (gloo): FOLDER. Each rank leaves RANK.pt there."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn
from torch.optim import SGD

from lightning_recipes import CachedFeatures, DigitsDataModule, FineTuning, ImageClassifier
from lightning_recipes.datamodules.samples import Samples

from ..contract.toys import QUIET


class Few(DigitsDataModule):
    """The first digits alone: 87 train, 15 validate, 18 test."""

    def load_samples(self):
        train = super().load_samples()["train"]
        return {"train": train.subset(torch.arange(120))}


class Marks(Few):
    """Each digit has marks: even, and above 4."""

    class_names = ["even", "large"]  # noqa: RUF012

    def load_samples(self):
        given = super().load_samples()["train"]
        targets = torch.stack([given.targets % 2 == 0, given.targets > 4], 1).float()
        return {"train": Samples(given.items, targets, given.reader)}


class Calls(Callback):
    """Counts the images that come to the backbone, call by call."""

    def __init__(self):
        self.sizes = []

    def setup(self, trainer, pl_module, stage):
        hook = pl_module.backbone.register_forward_hook(lambda _, args, __: self.sizes.append(len(args[0])))
        self.hook = hook

    def teardown(self, trainer, pl_module, stage):
        self.hook.remove()


def data(*, cached=True, kind=Few, **options):
    images = kind(**{"batch_size": 16, "augment": "none", **options})
    return CachedFeatures(images) if cached else images


def probe(*, seed=1, **options):
    """Return a classifier whose head has a schedule: what the run's length does to it shows."""
    seed_everything(seed, verbose=False)
    optimizer = {"optimizer": lambda p: SGD(p, 0.05, momentum=0.9)}
    return ImageClassifier("test_resnet", **{"num_classes": 10, "in_chans": 1, **optimizer, **options})


def fit(model, given, *callbacks, path=None, policy="linear_probe", **options):
    trainer = Trainer(**{**QUIET, "max_epochs": 3, "callbacks": [FineTuning(policy), *callbacks], **options})
    trainer.fit(model, datamodule=given, ckpt_path=path)
    return trainer


def head(model):
    return {name: value.detach().clone() for name, value in nn.Module.state_dict(model.head).items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    ends = {}
    for name, kind, classes in (("one label", Few, 10), ("marks", Marks, 2)):
        model, calls = probe(num_classes=classes, multi_label=kind is Marks), Calls()
        given = data(kind=kind, batch_size=8)
        trainer = fit(model, given, calls, devices=2, strategy="ddp", use_distributed_sampler=False)
        loader = given.train_dataloader()
        ends[name] = {
            "head": head(model),
            "loss": trainer.callback_metrics["val/loss"],
            "sizes": torch.tensor(calls.sizes),
            "features": loader.features,
            "targets": loader.targets,
        }
    torch.save(ends, Path(sys.argv[1]) / f"{trainer.global_rank}.pt")
