import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from lightning_recipes.preprocessing import (
    Preprocessing,
    channel_covariance,
    channel_statistics,
    fit_geometry,
)
from lightning_recipes.utils.errors import UserError


def test_statistics_are_those_of_float64(digits):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 9, 7), dtype=torch.uint8)
    mean, std = channel_statistics(images.split(8))
    pixels = images.numpy().astype(np.float64) / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3)), rel=1e-12)


def test_statistics_do_not_depend_on_order_or_pieces():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (20, 1, 5, 5), dtype=torch.uint8)
    assert channel_statistics(images) == channel_statistics(images.flip(0).split(7))


def test_the_covariance_is_that_of_numpy():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (150, 3, 9, 7), dtype=torch.uint8)
    images[:, 1] = images[:, 0] // 2
    pixels = images.numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(
        channel_covariance(images.split(70)), np.cov(pixels, bias=True), rtol=1e-9, atol=1e-15
    )
    assert torch.equal(channel_covariance(images), channel_covariance(images.flip(0).split(7)))
    grey = channel_covariance(images[:, :1])
    assert grey.shape == (1, 1)
    assert float(grey.sqrt()) == pytest.approx(channel_statistics(images[:, :1])[1][0], rel=1e-9)
    with pytest.raises(UserError, match="empty train split"):
        channel_covariance([])


def test_statistics_refuse_nothing_and_a_constant():
    with pytest.raises(UserError, match="empty train split"):
        channel_statistics([])
    with pytest.raises(UserError, match="one value in channel 1"):
        channel_statistics(
            [torch.stack([torch.arange(4), torch.full((4,), 7)]).view(2, 2, 2).to(torch.uint8)]
        )


def test_normalize_is_torchvision_s():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    ours = Preprocessing(3, 8, 1.0, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)).normalize(images)
    theirs = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])]
    )(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # the same in another order of operations


def test_normalized_train_images_have_mean_0_and_std_1(digits):
    images = digits[0][:, None]
    mean, std = channel_statistics([images])
    normal = Preprocessing(1, 8, 1.0, mean, std).normalize(images)
    assert float(normal.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normal.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_geometry_keeps_the_centre():
    image = torch.zeros(1, 10, 20, dtype=torch.uint8)
    image[:, :, 5:15] = 255  # the centre square
    assert torch.equal(fit_geometry(image, 10), torch.full((1, 10, 10), 255, dtype=torch.uint8))


def test_geometry_of_a_batch_is_that_of_each_image(digits):
    images = digits[0][:, None]
    each = torch.stack([fit_geometry(image, 32, 0.875) for image in images])
    assert torch.equal(fit_geometry(images, 32, 0.875), each)


def test_plain_data_round_trip():
    whole = Preprocessing(3, 32, 0.9, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    stored = whole.to_dict()
    assert all(type(value) in (int, float, list) for value in stored.values())
    assert Preprocessing.from_dict(stored) == whole
