"""Faults in what the model is given."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from .cases import Run, Shelf
from .data import Images, Splits, distort, imbalanced, loaders, splits
from .modules import Classifier, adamw, new_net, run

CASES = Shelf("faults")


def _with(data: Splits, labels: Tensor) -> Splits:
    return replace(data, labels=labels)


@CASES.fault("raw-pixels", "input-scale", on=(("cnn", "fashion"), ("resnet", "digits")))
def raw_pixels_with_batch_norm(arch: str, data: str) -> Run:
    """0..255, which BatchNorm hides."""
    return run(arch, data, images=Images(splits(data, scale="raw")))


@CASES.fault("raw-pixels", "input-scale", on=(("plain", "fashion"), ("mlp", "digits"), ("vit", "fashion")))
def raw_pixels_without_batch_norm(arch: str, data: str) -> Run:
    """0..255, and no BatchNorm."""
    return run(arch, data, images=Images(splits(data, scale="raw")))


@CASES.fault(
    "double-normalization", "input-scale", on=(("cnn", "fashion"), ("plain", "digits"), ("vit", "fashion"))
)
def normalised_twice(arch: str, data: str) -> Run:
    """By the mean and deviation of the pixels, in the datamodule and in the module."""
    unit = splits(data, scale="unit").images
    mean, std = unit.mean(), unit.std()

    class Faulty(Classifier):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward((images - mean) / std)

    return run(arch, data, module=Faulty)


@CASES.fault("double-normalization", "input-scale", on=(("plain", "fashion"), ("vit", "digits")))
def divided_twice(arch: str, data: str) -> Run:
    """By 255, in the datamodule and in the module."""

    class Faulty(Classifier):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images / 255)

    return run(arch, data, module=Faulty, images=Images(splits(data, scale="unit")))


@CASES.fault("constant-input", "input-ignored")
def input_zeroed(arch: str, data: str) -> Run:
    """The images are all zero."""
    given = splits(data)
    zeros = replace(
        given, images=torch.zeros_like(given.images), val_images=torch.zeros_like(given.val_images)
    )
    return run(arch, data, images=Images(zeros))


@CASES.fault("constant-labels")
def constant_labels(arch: str, data: str) -> Run:
    """Each label is 0, in training and in validation."""
    given = splits(data)
    same = replace(
        given, labels=torch.zeros_like(given.labels), val_labels=torch.zeros_like(given.val_labels)
    )
    return run(arch, data, images=Images(same))


@CASES.fault("labels-misaligned")
def shuffled_labels(arch: str, data: str) -> Run:
    """The labels are in another order than the images."""
    given = splits(data)
    return run(arch, data, images=Images(_with(given, given.labels[torch.randperm(len(given.labels))])))


@CASES.fault("wrong-number-of-classes")
def thousand_outputs(arch: str, data: str) -> Run:
    """1000 outputs for ten classes."""
    return run(arch, data, net=new_net(arch, data, classes=1000))


@CASES.fault("wrong-number-of-classes")
def twenty_outputs(arch: str, data: str) -> Run:
    """20 outputs for ten classes."""
    return run(arch, data, net=new_net(arch, data, classes=20))


@CASES.fault("wrong-number-of-classes")
def nine_outputs(arch: str, data: str) -> Run:
    """9 outputs for ten classes: the loss fails."""
    return run(arch, data, net=new_net(arch, data, classes=9))


@CASES.fault("non-finite-input")
def nan_in_a_pixel(arch: str, data: str) -> Run:
    """One pixel of one training image is NaN."""
    given = splits(data)
    given.images[321, 0, 5, 5] = float("nan")
    return run(arch, data, images=Images(given))


@CASES.fault("unshuffled-data")
def sorted_by_class(arch: str, data: str) -> Run:
    """The training data are sorted by class, and not shuffled."""
    given = splits(data)
    order = given.labels.argsort(stable=True)
    by_class = replace(given, images=given.images[order], labels=given.labels[order])
    return run(arch, data, images=Images(by_class, shuffle=False))


@CASES.fault("validation-in-training")
def validation_in_training(arch: str, data: str) -> Run:
    """The training data hold the whole of the validation data."""
    given = splits(data)
    images = torch.cat([given.images, given.val_images])
    labels = torch.cat([given.labels, given.val_labels])
    return run(arch, data, images=Images(replace(given, images=images, labels=labels)))


@CASES.fault("augmentation-on-validation")
def augmentation_on_validation(arch: str, data: str) -> Run:
    """Validation images are distorted at random, as the training images are."""
    return run(arch, data, images=Images(splits(data), transform=distort, val_transform=distort))


# Faults beyond the list


@CASES.fault("labels-misaligned", "wrong-loss", extra=True)
def labels_permuted_in_step(arch: str, data: str) -> Run:
    """The training step shuffles labels alone."""

    class Faulty(Classifier):
        def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
            return super().loss(logits, labels[torch.randperm(len(labels))])

    return run(arch, data, module=Faulty)


@CASES.fault("labels-misaligned", extra=True)
def labels_off_by_one_row(arch: str, data: str) -> Run:
    """Each image has the label of its neighbour, in training and in validation."""
    given = splits(data)
    rolled = replace(given, labels=given.labels.roll(1), val_labels=given.val_labels.roll(1))
    return run(
        arch, data, images=loaders((rolled.images, rolled.labels), (rolled.val_images, rolled.val_labels))
    )


@CASES.fault("train-validation-mismatch", extra=True)
def validation_not_normalised(arch: str, data: str) -> Run:
    """Training images are standardised, validation images are 0..255."""
    given, raw = splits(data), splits(data, scale="raw")
    return run(arch, data, images=Images(replace(given, val_images=raw.val_images)))


@CASES.fault("train-validation-mismatch", extra=True)
def validation_upside_down(arch: str, data: str) -> Run:
    """Validation images are transposed."""
    given = splits(data)
    return run(arch, data, images=Images(replace(given, val_images=given.val_images.transpose(2, 3))))


@CASES.fault("input-ignored", "constant-input", on=(("cnn", "digits"), ("vit", "fashion")), extra=True)
def first_batch_reused(arch: str, data: str) -> Run:
    """The forward pass takes the first image of the batch for all."""

    class Faulty(Classifier):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images[:1].expand_as(images))

    return run(arch, data, module=Faulty)


@CASES.fault("non-finite-input", on=(("cnn", "fashion"), ("vit", "digits")), extra=True)
def infinity_in_an_image(arch: str, data: str) -> Run:
    """One training image was divided by zero."""
    given = splits(data)
    given.images[17] = float("inf")
    return run(arch, data, images=Images(given))


@CASES.fault("shape-mismatch", on=(("mlp", "digits"),), extra=True)
def layers_do_not_fit(arch: str, data: str) -> Run:
    """The head expects other features than the body gives."""
    net = new_net(arch, data)
    net.head = nn.Linear(100, 10)
    return run(arch, data, net=net)


@CASES.fault("class-imbalance", on=(("cnn", "fashion"), ("vit", "fashion")), extra=True)
def rare_classes_without_a_weight(arch: str, data: str) -> Run:
    """The rarest class has one sample for 500 of the commonest; validation is balanced."""
    return run(arch, data, images=Images(imbalanced(splits(data), ratio=500)), optimizer=adamw())
