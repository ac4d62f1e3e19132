"""Healthy runs: families of nets, optimizers and the recipes that are in use."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from . import healthy_data, healthy_nets
from .cases import Case, Run, Settings
from .modules import MakeOptimizer, adamw, run, sgd

FAMILIES = ("resnet", "vgg", "vit", "convnext", "efficientnet")
CONVOLUTIONS = ("cnn", "resnet", "vgg", "efficientnet")


def _adam(lr: float) -> MakeOptimizer:
    return lambda p: torch.optim.Adam(p, lr=lr)


OPTIMIZERS: dict[str, MakeOptimizer] = {
    "adamw-1e-3": adamw(1e-3, weight_decay=0.05),
    "adamw-3e-4": adamw(3e-4),
    "adam-1e-3": _adam(1e-3),
    "sgd-0.05": sgd(0.05),
    "sgd-0.1": sgd(0.1),
}


def _plain(optimizer: str, arch: str, data: str) -> Run:
    settings: Settings = {"max_epochs": 12} if optimizer.endswith("3e-4") else {}
    return run(arch, data, optimizer=OPTIMIZERS[optimizer], settings=settings)


def _grid() -> Iterator[Case]:
    """Each family with each optimizer that is usual for it, on each data."""
    for data in ("digits", "tinted", "fashion"):
        for arch in FAMILIES:
            names = ["adamw-1e-3", "adamw-3e-4" if data == "fashion" else "adam-1e-3"]
            if arch in CONVOLUTIONS:
                names.append("sgd-0.1" if data == "digits" else "sgd-0.05")
            for name in names:
                yield Case("healthy", name, arch, data, partial(_plain, name))


HEALTHY: list[Case] = [*_grid(), *healthy_data.CASES, *healthy_nets.CASES]
