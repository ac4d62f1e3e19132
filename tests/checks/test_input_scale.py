from itertools import product

import pytest
import torch
from sklearn.datasets import load_digits

from lightning_recipes.checks.input_scale import USUAL, input_scale


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(load_digits().images[:128]).float()[:, None].expand(-1, 3, -1, -1) / 16


def normalise(images, name, times=1):
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in USUAL[name])
    for _ in range(times):
        images = (images - mean) / std
    return images


@pytest.mark.parametrize(("name", "pretrained"), list(product(USUAL, (True, False))))
def test_once_is_fine_and_twice_is_seen(images, name, pretrained):
    mean, std = USUAL["ImageNet"]
    options = {"pretrained": pretrained, "expected_mean": mean, "expected_std": std}
    assert input_scale(normalise(images, name), **options).status == "PASS"
    twice = input_scale(normalise(images, name, 2), **options)
    assert (twice.status, twice.causes[0]) == ("WARN", "double-normalization")


def test_own_statistics_twice(images):
    images = images[:, :1]
    mean, std = images.mean(), images.std()
    once = (images - mean) / std
    assert input_scale(once, pretrained=False).status == "PASS"
    assert input_scale((once - mean) / std, pretrained=False).causes == ("double-normalization",)


def test_raw_pixels_but_not_tables(images):
    assert input_scale(images * 255, pretrained=False).causes == ("raw-pixels",)
    assert input_scale(images * 16, pretrained=False).status == "INFO"
    assert input_scale(images.flatten(1) * 255, pretrained=False).status == "INFO"
    assert input_scale(images, (images * 255).flatten(1), pretrained=False).status == "WARN"
    assert input_scale((images * 255).byte(), images, pretrained=False).status == "PASS"
    assert input_scale((images * 255).byte(), pretrained=False).status == "SKIP"


def test_broken_and_constant_inputs_fail(images):
    broken = images.clone()
    broken[3, 0, 2, 2] = float("nan")
    found = input_scale(broken, pretrained=False)
    assert (found.status, found.evidence["non_finite_samples"]) == ("FAIL", 1)
    assert input_scale(images, broken, pretrained=False).causes == ("non-finite-input",)
    same = images[:1].expand(16, -1, -1, -1)
    assert input_scale(same, pretrained=False).causes[0] == "constant-input"
    assert input_scale(images, torch.zeros(16, 3), pretrained=False).status == "FAIL"


def test_a_pretrained_network_expects_its_scale(images):
    assert input_scale(normalise(images, "0.5") * 10, pretrained=True).status == "WARN"
    assert input_scale(images / 255, pretrained=True).causes == ("input-scale",)
    assert input_scale(images / 255, pretrained=False).causes == ("input-scale", "raw-pixels")
    assert input_scale(images, pretrained=False).status == "PASS"
