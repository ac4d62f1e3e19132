"""Healthy recipes for the net, its weights, and the optimization."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)

from . import healthy_modules as recipes
from .cases import Run, Shelf
from .data import CHANNELS, SIZES, Images, imbalanced, splits
from .modules import adamw, new_net, run, sgd
from .nets import Net, mlp, resnet

CASES = Shelf("healthy")
FAMILIES = ("resnet", "vgg", "vit", "convnext", "efficientnet")


# The net


@CASES.healthy(("resnet", "fashion"), ("vit", "digits"), ("convnext", "fashion"))
def zero_head(arch: str, data: str) -> Run:
    """The head begins with zeros."""
    net = new_net(arch, data)
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    return run(arch, data, net=net)


@CASES.healthy(("resnet", "digits"), ("vit", "fashion"), goal=0.3)
def bias_of_the_prior(arch: str, data: str) -> Run:
    """Long-tailed classes, and a head that begins with their logarithms."""
    given, net = imbalanced(splits(data), ratio=30), new_net(arch, data)
    net.head.bias.data = (given.labels.bincount() / len(given.labels)).log()
    return run(arch, data, net=net, images=Images(given, batch_size=32), settings={"max_epochs": 12})


@CASES.healthy(("cnn", "digits"), ("mlp", "fashion"), ("vit", "digits"))
def dropout_half(arch: str, data: str) -> Run:
    """Half of the features are dropped."""
    return run(arch, data, net=new_net(arch, data, dropout=0.5), settings={"max_epochs": 10})


@CASES.healthy(("resnet", "digits"), ("convnext", "fashion"), ("efficientnet", "digits"))
def stochastic_depth(arch: str, data: str) -> Run:
    """Branches are dropped with probability .2."""
    return run(arch, data, net=new_net(arch, data, drop_path=0.2), settings={"max_epochs": 8})


@CASES.healthy(("resnet", "digits"), ("resnet", "fashion"))
def norms_begin_with_ones(arch: str, data: str) -> Run:
    """Residual branches that are not initialised with zeros."""
    body, width = resnet(CHANNELS[data], zero=False)
    return run(arch, data, net=Net(body, width))


@CASES.healthy(("plain", "digits"), ("plain", "fashion"), ("mlp", "digits"), ("mlp", "fashion"))
def no_norm(arch: str, data: str) -> Run:
    """No normalisation, with a fitting initialisation."""
    return run(arch, data, settings={"max_epochs": 10})


@CASES.healthy(("mlp", "digits"), ("mlp", "fashion"))
def tanh(arch: str, data: str) -> Run:
    """Two layers of tanh."""
    net = Net(mlp(CHANNELS[data] * SIZES[data] ** 2, act=nn.Tanh), 128)
    return run(arch, data, net=net)


@cache
def _pretrained(arch: str, data: str) -> Net:
    """Return a net that was trained for 80 steps on other labels: odd and even."""
    net, given = new_net(arch, data, classes=2), splits(data)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(80):
        index = torch.randint(len(given.labels), (64,))
        loss = nn.functional.cross_entropy(net(given.images[index]), given.labels[index] % 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def _loaded(arch: str, data: str) -> Net:
    net = copy.deepcopy(_pretrained(arch, data))
    net.head = nn.Linear(net.head.in_features, 10)
    return net


@CASES.healthy(*((arch, "digits") for arch in FAMILIES))
def pretrained(arch: str, data: str) -> Run:
    """A trained body, a new head."""
    return run(arch, data, net=_loaded(arch, data), optimizer=adamw(1e-3))


@CASES.healthy(("resnet", "digits"), ("vgg", "fashion"), ("convnext", "fashion"), goal=0.35)
def pretrained_and_frozen(arch: str, data: str) -> Run:
    """A trained body that is frozen and in eval mode."""
    net = _loaded(arch, data)
    net.body.requires_grad_(False)
    settings = {"max_epochs": 12}
    return run(arch, data, module=recipes.Probe, net=net, optimizer=adamw(1e-2), settings=settings)


@CASES.healthy(("resnet", "fashion"), ("vit", "digits"))
def pretrained_with_two_rates(arch: str, data: str) -> Run:
    """A lower rate for the trained body."""
    return run(arch, data, module=recipes.FineTuned, net=_loaded(arch, data), settings={"max_epochs": 10})


# The optimization


def _cosine(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    return CosineAnnealingLR(optimizer, steps)


def _warm(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    warm = max(1, steps // 20)
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warm) * (1 - step / (steps + 1)))


def _cycle(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    return OneCycleLR(optimizer, max_lr=0.1, total_steps=steps + 1)


def _stairs(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    return StepLR(optimizer, max(1, steps // 2), 0.1)


@CASES.healthy(("resnet", "digits"), ("vit", "fashion"), ("efficientnet", "fashion"))
def cosine(arch: str, data: str) -> Run:
    """Half a cosine over the run."""
    return run(arch, data, schedule=_cosine)


@CASES.healthy(("vit", "digits"), ("convnext", "fashion"))
def warmup_and_linear_decay(arch: str, data: str) -> Run:
    """Warmup over a twentieth of the run."""
    return run(arch, data, schedule=_warm, settings={"max_epochs": 8})


@CASES.healthy(("resnet", "fashion"), ("cnn", "digits"))
def one_cycle(arch: str, data: str) -> Run:
    """Up to .1 and down."""
    return run(arch, data, optimizer=sgd(0.004), schedule=_cycle)


@CASES.healthy(("resnet", "digits"), ("vgg", "fashion"))
def stairs(arch: str, data: str) -> Run:
    """A tenth of the rate after half of the run."""
    return run(arch, data, schedule=_stairs)


@CASES.healthy(("resnet", "fashion"), ("vit", "digits"))
def clipped_at_one(arch: str, data: str) -> Run:
    """Gradients clipped to a norm of 1."""
    return run(arch, data, settings={"gradient_clip_val": 1.0})


@CASES.healthy(("resnet", "digits"), ("vit", "fashion"))
def accumulation(arch: str, data: str) -> Run:
    """A step for four batches of 16."""
    images = Images(splits(data), batch_size=16)
    return run(arch, data, images=images, settings={"accumulate_grad_batches": 4, "max_epochs": 8})


@CASES.healthy(("resnet", "digits"), ("vit", "fashion"), ("convnext", "digits"))
def bf16(arch: str, data: str) -> Run:
    """Mixed precision."""
    return run(arch, data, settings={"precision": "bf16-mixed"})


@CASES.healthy(("resnet", "digits"), ("vit", "fashion"))
def manual_optimization(arch: str, data: str) -> Run:
    """Steps and clipping by hand."""
    return run(arch, data, module=recipes.ByHand, schedule=_cosine)


@CASES.healthy(("cnn", "digits"), ("vit", "digits"))
def manual_accumulation(arch: str, data: str) -> Run:
    """A step for two batches, by hand."""
    images = Images(splits(data), batch_size=32)
    return run(arch, data, module=recipes.Accumulating, images=images)


@CASES.healthy(("cnn", "fashion"), ("mlp", "digits"))
def rmsprop(arch: str, data: str) -> Run:
    """Another optimizer."""
    return run(arch, data, optimizer=lambda p: torch.optim.RMSprop(p, lr=1e-3))
