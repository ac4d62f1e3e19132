"""Healthy runs: families of nets, optimizers and the recipes that are in use."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from . import healthy_modules as recipes
from .cases import Case, Run, Shelf
from .data import CHANNELS, SIZES, Images, Loaders, TrainOnly, augment, imbalanced, loaders, splits
from .modules import MakeOptimizer, adamw, new_net, run, sgd
from .nets import Net, mlp, resnet

CASES = Shelf("healthy")
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
    return run(arch, data, optimizer=OPTIMIZERS[optimizer])


def _grid() -> Iterator[Case]:
    """Each family with each optimizer that is usual for it, on each data."""
    for data in ("digits", "tinted", "fashion"):
        for arch in FAMILIES:
            names = ["adamw-1e-3", "adamw-3e-4" if data == "fashion" else "adam-1e-3"]
            if arch in CONVOLUTIONS:
                names.append("sgd-0.1" if data == "digits" else "sgd-0.05")
            for name in names:
                yield Case("healthy", name, arch, data, partial(_plain, name))


CASES.extend(_grid())

# The loss and the labels


@CASES.healthy(("resnet", "digits"), ("vit", "fashion"), ("convnext", "digits"))
def mixup(arch: str, data: str) -> Run:
    """Soft targets."""
    return run(arch, data, module=recipes.Mixup)


@CASES.healthy(("cnn", "fashion"), ("efficientnet", "digits"))
def mixup_of_losses(arch: str, data: str) -> Run:
    """The loss is mixed, not the targets."""
    return run(arch, data, module=recipes.MixupOfLosses)


@CASES.healthy(("resnet", "fashion"), ("vit", "digits"), ("vgg", "digits"))
def label_smoothing(arch: str, data: str) -> Run:
    """Smoothing of .1."""
    return run(arch, data, module=recipes.Smoothed)


@CASES.healthy(("resnet", "digits"), ("cnn", "fashion"), ("vit", "digits"), goal=0.3)
def imbalance_1_to_100(arch: str, data: str) -> Run:
    """Long-tailed classes, and a validation set that is balanced."""
    return run(
        arch, data, images=Images(imbalanced(splits(data)), batch_size=32), settings={"max_epochs": 15}
    )


@CASES.healthy(("resnet", "fashion"), ("convnext", "digits"), goal=0.3)
def imbalance_with_class_weights(arch: str, data: str) -> Run:
    """Long-tailed classes, weighted in the loss."""
    images = Images(imbalanced(splits(data), ratio=20), batch_size=32)
    return run(arch, data, module=recipes.Weighted, images=images, settings={"max_epochs": 12})


@CASES.healthy(("resnet", "digits"), ("vit", "fashion"), goal=0.3)
def weighted_sampler(arch: str, data: str) -> Run:
    """Long-tailed classes, sampled alike."""
    given = imbalanced(splits(data), ratio=20)
    weights = (1 / given.labels.bincount().float())[given.labels]
    sampler = WeightedRandomSampler(weights.tolist(), len(weights))
    images = Images(given, sampler=sampler, batch_size=32)
    return run(arch, data, images=images, settings={"max_epochs": 12})


@CASES.healthy(("cnn", "digits"), ("vit", "fashion"))
def focal_loss(arch: str, data: str) -> Run:
    """A loss that torch has not."""
    return run(arch, data, module=recipes.Focal)


@CASES.healthy(("resnet", "digits"), ("mlp", "fashion"))
def log_softmax_and_nll(arch: str, data: str) -> Run:
    """The net gives log-probabilities."""
    return run(arch, data, module=recipes.LogSoftmaxNLL)


@CASES.healthy(("resnet", "digits"), ("convnext", "fashion"))
def one_versus_all(arch: str, data: str) -> Run:
    """Binary cross-entropies for single-label data."""
    return run(arch, data, module=recipes.OneVersusAll)


@CASES.healthy(("cnn", "digits"), ("mlp", "digits"))
def hinge(arch: str, data: str) -> Run:
    """The margin loss."""
    return run(arch, data, module=recipes.Hinge)


@CASES.healthy(("cnn", "digits"), ("resnet", "fashion"), goal=0.7)
def binary(arch: str, data: str) -> Run:
    """One logit."""
    return run(arch, data, module=recipes.Binary, net=new_net(arch, data, classes=1))


@CASES.healthy(("cnn", "digits"), ("vit", "fashion"), goal=0.7)
def multi_label(arch: str, data: str) -> Run:
    """Three sigmoids."""
    return run(arch, data, module=recipes.MultiLabel, net=new_net(arch, data, classes=3))


# The data


@CASES.healthy(("resnet", "fashion"), ("vit", "digits"), ("efficientnet", "digits"))
def augmentation(arch: str, data: str) -> Run:
    """Shifts and noise in training only."""
    return run(arch, data, images=Images(splits(data), transform=augment))


@CASES.healthy(("resnet", "digits"), ("vit", "digits"))
def normalised_in_the_module(arch: str, data: str) -> Run:
    """The loader gives 0..255, the module normalises."""
    return run(arch, data, module=recipes.Normalising, images=Images(splits(data, scale="raw")))


@CASES.healthy(("resnet", "digits"), ("convnext", "fashion"), ("vit", "fashion"))
def unit_scale(arch: str, data: str) -> Run:
    """Pixels in 0..1, not standardised."""
    return run(arch, data, images=Images(splits(data, scale="unit")), settings={"max_epochs": 8})


@CASES.healthy(("cnn", "digits"), ("vit", "fashion"))
def no_validation(arch: str, data: str) -> Run:
    """One loader; measured on what it was trained on."""
    given = loaders((splits(data).images, splits(data).labels), ())
    return run(arch, data, images=TrainOnly(given.train))


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples in a new order each time, without a length."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(len(self.labels)).tolist():
            yield self.images[index], self.labels[index]


@CASES.healthy(("cnn", "digits"), ("resnet", "fashion"))
def iterable_dataset(arch: str, data: str) -> Run:
    """A training loader without a length."""
    given = splits(data)
    train = DataLoader(Stream(given.images, given.labels), batch_size=64)
    val = loaders((given.images, given.labels), (given.val_images, given.val_labels)).val
    return run(arch, data, images=Loaders(train, val))


class Named(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Samples as dictionaries."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.images[index], "label": self.labels[index]}


@CASES.healthy(("cnn", "digits"), ("convnext", "digits"))
def dictionaries(arch: str, data: str) -> Run:
    """Batches are dictionaries."""
    given = splits(data)
    train = DataLoader(Named(given.images, given.labels), batch_size=64, shuffle=True)
    val = DataLoader(Named(given.val_images, given.val_labels), batch_size=128)
    return run(arch, data, module=recipes.Dictionary, images=Loaders(train, val))


@CASES.healthy(("resnet", "digits"), ("vit", "digits"))
def small_batches(arch: str, data: str) -> Run:
    """Eight samples a batch, at a lower rate."""
    images = Images(splits(data), batch_size=8)
    return run(arch, data, images=images, optimizer=adamw(3e-4), settings={"max_epochs": 3})


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


# Other tasks


@CASES.healthy(("mlp", "diabetes"), metric="val_loss", goal=0.8)
def diabetes(arch: str, data: str) -> Run:
    """A regression on 10 features, both sides standardised."""
    from sklearn.datasets import load_diabetes

    given = load_diabetes()
    x = torch.from_numpy(given.data).float()
    y = torch.from_numpy(given.target).float()[:, None]
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    net = Net(mlp(10, width=32), 32, 1)
    images = loaders((x[:342], y[:342]), (x[342:], y[342:]), batch_size=32)
    return Run(recipes.Regression(net, adamw(1e-3)), images, {"max_epochs": 30})


@CASES.healthy(("mlp", "waves"), ("mlp", "planes"), metric="val_loss", goal=0.5)
def synthetic_regression(arch: str, data: str) -> Run:
    """A function of five numbers, with noise."""
    x = torch.randn(1200, 5)
    y = x @ torch.tensor([[1.0], [-1.0], [0.5], [0.0], [0.0]])
    y = (y.sin() if data == "waves" else y) + 0.1 * torch.randn(1200, 1)
    y = (y - y.mean()) / y.std()
    net = Net(mlp(5, width=64), 64, 1)
    images = loaders((x[:1000], y[:1000]), (x[1000:], y[1000:]), batch_size=64)
    return Run(recipes.Regression(net, adamw(3e-3)), images, {"max_epochs": 30})


@CASES.healthy(("mlp", "digits"), ("mlp", "fashion"), metric="val_loss", goal=0.6)
def autoencoder(arch: str, data: str) -> Run:
    """No labels."""
    return Run(recipes.Autoencoder(SIZES[data] ** 2), Images(splits(data)), {"max_epochs": 10})


@CASES.healthy(("mlp", "digits"), ("mlp", "fashion"), metric="fake_mean_loss", goal=0.35)
def gan(arch: str, data: str) -> Run:
    """Two optimizers; the mean of what is generated nears that of the data."""
    return Run(recipes.GAN(SIZES[data] ** 2), Images(splits(data)), {"max_epochs": 15})


@CASES.healthy(("resnet", "digits"), ("vit", "digits"))
def our_own_pieces(arch: str, data: str) -> Run:
    """The package's own module and datamodule, with their defaults."""
    from lightning_recipes import DigitsDataModule, ImageClassifier

    class Named(ImageClassifier):
        def on_validation_epoch_end(self) -> None:
            self.log("val_acc", self.trainer.callback_metrics.get("val/acc", torch.tensor(0.0)))

    if arch == "vit":
        net = Named("test_vit", num_classes=10, in_chans=1, image_size=32)
    else:
        net = Named("test_resnet", num_classes=10, in_chans=1)
    return Run(net, DigitsDataModule(), {"max_epochs": 4})


HEALTHY: list[Case] = CASES
