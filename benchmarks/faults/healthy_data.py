"""Healthy recipes for the loss, the labels and the data, and other tasks than classification."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from . import healthy_modules as recipes
from .cases import Run, Shelf
from .data import SIZES, Images, Loaders, TrainOnly, augment, imbalanced, loaders, splits
from .modules import adamw, new_net, run
from .nets import Net, mlp

CASES = Shelf("healthy")

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
    return run(arch, data, module=recipes.Binary, net=new_net(arch, data, classes=1), optimizer=adamw())


@CASES.healthy(("cnn", "digits"), ("vit", "fashion"), goal=0.7)
def multi_label(arch: str, data: str) -> Run:
    """Three sigmoids."""
    return run(arch, data, module=recipes.MultiLabel, net=new_net(arch, data, classes=3))


# The data


@CASES.healthy(("resnet", "fashion"), ("vit", "digits"), ("efficientnet", "digits"))
def augmentation(arch: str, data: str) -> Run:
    """Shifts and noise in training only."""
    return run(arch, data, images=Images(splits(data), transform=augment), settings={"max_epochs": 15})


@CASES.healthy(("resnet", "digits"), ("vit", "digits"))
def normalised_in_the_module(arch: str, data: str) -> Run:
    """The loader gives 0..255, the module normalises."""
    return run(arch, data, module=recipes.Normalising, images=Images(splits(data, scale="raw")))


@CASES.healthy(("resnet", "digits"), ("convnext", "fashion"), ("vit", "fashion"))
def unit_scale(arch: str, data: str) -> Run:
    """Pixels in 0..1, not standardised."""
    return run(arch, data, images=Images(splits(data, scale="unit")), settings={"max_epochs": 8})


@CASES.healthy(("cnn", "digits"), ("vit", "fashion"), metric="train_loss", goal=0.9)
def no_validation(arch: str, data: str) -> Run:
    """One loader; measured by the training loss."""
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
