"""Transfers on two processes (gloo): FOLDER. Each rank leaves what came of them in FOLDER/RANK.pt."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn
from torch.optim import SGD

from lightning_recipes import DigitsDataModule, FineTuning, ImageClassifier

from ..contract.toys import QUIET

POLICIES = ["probe_then_finetune", "gradual_unfreeze"]


class GroupNormed(ImageClassifier):
    """BatchNorm sees other batches on two processes than on one: here each image is normed by itself."""

    def configure_backbone(self):
        backbone = super().configure_backbone()
        for path, part in list(backbone.named_modules()):
            if isinstance(part, nn.BatchNorm2d):
                norm = nn.Sequential(nn.GroupNorm(1, part.num_features), getattr(part, "act", nn.Identity()))
                backbone.set_submodule(path, norm)
        return backbone


def run(policy, devices):
    """Return the trainer, and the module's weights before and after a probe of one epoch and two more."""
    seed_everything(1, verbose=False)
    optimizer = {"optimizer": lambda p: SGD(p, 0.05, momentum=0.9), "schedule": None}
    model = GroupNormed("test_resnet", num_classes=10, in_chans=1, **optimizer)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    data = DigitsDataModule(limit_per_class=4, batch_size=20 // devices, augment="none")
    strategy = {"devices": devices, "strategy": "ddp" if devices > 1 else "auto"}
    callback = FineTuning(policy, probe_epochs=1)
    trainer = Trainer(**{**QUIET, **strategy, "max_epochs": 3}, callbacks=[callback])
    trainer.fit(model, datamodule=data)
    end = {name: value for name, value in model.state_dict().items() if "metrics" not in name}
    return trainer, start, {**end, "val/loss": trainer.callback_metrics["val/loss"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    ends = {}
    for policy in POLICIES:
        trainer, _, ends[policy] = run(policy, 2)
    torch.save(ends, Path(sys.argv[1]) / f"{trainer.global_rank}.pt")
