import pytest
import torch
from torchvision.transforms import v2

from lightning_recipes.checks.random_validation import random_validation, train_validation_mismatch


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(64, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(16, 16), mode="nearest")


def test_equal_passes_and_random_ones(images):
    assert random_validation(images, images.clone()).status == "PASS"
    flipped = torch.cat([images[:32], images[32:].flip(-1)])
    found = random_validation(images, flipped)
    assert (found.status, found.evidence["share"]) == ("WARN", 0.5)
    assert random_validation(images, images[:32]).status == "SKIP"


def test_another_order_is_not_randomness(images):
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert random_validation(images, images[order]).status == "INFO"
    labels = torch.arange(64)
    found = random_validation(images, images[order] + 1, first_targets=labels, second_targets=labels[order])
    assert found.status == "SKIP"


@pytest.mark.parametrize("mean_std", [(0.5, 0.29), (0.5, 0.5)])
def test_a_set_that_is_not_normalised_is_seen(images, mean_std):
    normalised = (images - mean_std[0]) / mean_std[1]
    assert train_validation_mismatch(normalised[:32], images[32:]).status == "WARN"
    assert train_validation_mismatch(images[:32], normalised[32:]).status == "WARN"
    assert train_validation_mismatch(images[:32], images[32:] * 255).status == "WARN"


@pytest.mark.parametrize(
    "augment",
    [
        v2.RandomErasing(1.0, value="random"),
        v2.RandomCrop(16, padding=4),
        v2.RandomAffine(30, (0.2, 0.2), (0.7, 1.3)),
        v2.RandomResizedCrop(16, scale=(0.08, 1)),
        v2.ColorJitter(0.4, 0.4, 0.4),
    ],
    ids=lambda transform: type(transform).__name__,
)
@pytest.mark.parametrize("normalised", [False, True])
def test_augmentation_is_not_a_mismatch(images, augment, normalised):
    torch.manual_seed(0)
    jitter = isinstance(augment, v2.ColorJitter)

    def scale(x):
        return (x - 0.5) / 0.29 if normalised else x

    train = torch.stack([scale(augment(image)) if jitter else augment(scale(image)) for image in images[:32]])
    mixed = 0.6 * train + 0.4 * train.flip(0)
    for batch in (train, mixed):
        assert train_validation_mismatch(batch, scale(images[32:])).status == "PASS"
