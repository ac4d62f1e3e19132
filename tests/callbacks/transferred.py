"""What the tests of transfer share: a small backbone with stages, norms and dropout, in modules."""

import copy

import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from torch import nn

from lightning_recipes import FineTuning

from ..contract.toys import fit


class Backbone(nn.Module):
    """A stem and three stages, as timm's are: with statistics, draws and `group_matcher`."""

    def __init__(self, drop=0.2):
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(16, 6, bias=False), nn.BatchNorm1d(6))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(drop))
            for _ in range(3)
        )

    def forward(self, images):
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return x

    def group_matcher(self, coarse=False):
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}


PARTS = ["stem", "stages.0", "stages.1", "stages.2"]


class Transfer(LightningModule):
    """A backbone and a head, of which each may be called otherwise."""

    def __init__(self, *, drop=0.2, name="backbone", optimizer=None, lr=0.1):
        super().__init__()
        self.name, self.lr = name, lr
        setattr(self, name, Backbone(drop))
        self.head = nn.Linear(6, 4)
        self.make = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr, momentum=0.9))

    @property
    def net(self):
        return getattr(self, self.name)

    def forward(self, images):
        return self.head(self.net(images))

    def training_step(self, batch, batch_idx):
        images, targets = batch
        return nn.functional.cross_entropy(self(images), targets)

    def validation_step(self, batch, batch_idx):
        images, targets = batch
        self.log("val/loss", nn.functional.cross_entropy(self(images), targets))

    def configure_optimizers(self):
        return self.make(self.parameters())


class Witness(Callback):
    """Keeps of each epoch which parts of the backbone learn and which train, and the weights at its end."""

    def __init__(self):
        self.learning, self.training, self.states = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            net, names = pl_module.net, PARTS if hasattr(pl_module.net, "stem") else None
            parts = {name: net.get_submodule(name) for name in names or dict(net.named_children())}
            parts = {name: part for name, part in parts.items() if list(part.parameters())}
            self.learning.append(
                [n for n, p in parts.items() if all(x.requires_grad for x in p.parameters())]
            )
            self.training.append([n for n, p in parts.items() if all(m.training for m in p.modules())])

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append(copy.deepcopy(pl_module.state_dict()))


def transfer(kind=Transfer, **options):
    seed_everything(3, verbose=False)
    return kind(**options)


def moved(first, second, prefix=""):
    """Return the names of the tensors that differ, by a bit or more."""
    return [n for n in first if n.startswith(prefix) and not torch.equal(first[n], second[n])]


def rates(optimizer, module):
    """Return the learning rate of each parameter by name."""
    names = {id(p): name for name, p in module.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


__all__ = ["PARTS", "Backbone", "Transfer", "Witness", "fit", "moved", "rates", "transfer"]


def tuning(policy="probe_then_finetune", **options):
    """Return a `FineTuning` whose norms learn with their layers, so that they show which are frozen."""
    return FineTuning(policy, **{"freeze_norms": False, **options})
