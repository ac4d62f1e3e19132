"""A LightningModule as a user writes one, and the run that it is trained in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .cases import Run, Settings
from .data import CHANNELS, SIZES, Images, splits
from .nets import Net, create

MakeOptimizer = Callable[[Iterable[Tensor]], Optimizer]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]


def sgd(lr: float = 0.05, *, momentum: float = 0.9, weight_decay: float = 5e-4) -> MakeOptimizer:
    """Return what makes SGD of parameters."""
    return lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum, weight_decay=weight_decay)


def adamw(lr: float = 1e-3, *, weight_decay: float = 0.01) -> MakeOptimizer:
    """Return what makes AdamW of parameters."""
    return lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=weight_decay)


def usual(arch: str, *, factor: float = 1.0) -> MakeOptimizer:
    """Return SGD for nets with convolutions and BatchNorm, AdamW for the others."""
    return sgd(0.05 * factor) if arch in ("cnn", "resnet", "vgg") else adamw(1e-3 * factor)


class Classifier(LightningModule):
    """Images to classes.

    Args:
        net: Images (B, C, H, W) to logits (B, K).
        optimizer: Parameters to an optimizer.
        schedule: Optimizer and steps of the run to a scheduler, stepped once a step.
    """

    def __init__(
        self, net: nn.Module, optimizer: MakeOptimizer | None = None, schedule: MakeSchedule | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.make_optimizer, self.make_schedule = optimizer or adamw(), schedule

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        logits: Tensor = self.net(images)
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss."""
        return F.cross_entropy(logits, labels)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        """Return the loss of a batch."""
        images, labels = batch
        loss = self.loss(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch."""
        images, labels = batch
        logits = self(images)
        self.log("val_loss", F.cross_entropy(logits, labels))
        self.log("val_acc", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with its schedule where there is one."""
        optimizer = self.make_optimizer(self.parameters())
        if self.make_schedule is None:
            return optimizer
        scheduler = self.make_schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def new_net(arch: str, data: str, *, classes: int = 10, dropout: float = 0.0, drop_path: float = 0.0) -> Net:
    """Return the net of that name for those images."""
    return create(arch, CHANNELS[data], SIZES[data], classes=classes, dropout=dropout, drop_path=drop_path)


def run(
    arch: str,
    data: str,
    *,
    module: type[Classifier] = Classifier,
    net: nn.Module | None = None,
    images: LightningDataModule | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule | None = None,
    settings: Settings | None = None,
) -> Run:
    """Return a run that is healthy but for what is given."""
    return Run(
        module(net or new_net(arch, data), optimizer or usual(arch), schedule),
        images or Images(splits(data)),
        settings or {},
    )
