import numpy as np
import pytest
import torch

from lightning_recipes.preprocessing import channel_covariance, channel_mean, channel_statistics
from lightning_recipes.utils.errors import UserError


def images(count=20, channels=3, size=9):
    return torch.randint(
        0,
        256,
        (count, channels, size, size - 2),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )


def test_statistics_are_those_of_float64():
    mean, std = channel_statistics(images().split(8))
    pixels = images().numpy().astype(np.float64) / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3)), rel=1e-12)
    assert channel_mean(images().split(8)) == mean


def test_statistics_do_not_depend_on_order_or_pieces():
    grey = images(channels=1)
    assert channel_statistics(grey) == channel_statistics(grey.flip(0).split(7))


def test_the_channels_covariance_is_numpy_s_over_all_pixels():
    bright = images() // 8 + 200  # a large mean beside a small variance
    bright[:, 1] = bright[:, 0] // 2
    pixels = bright.movedim(1, -1).reshape(-1, 3).numpy().astype(np.float64) / 255
    ours = channel_covariance(bright.split(7))
    assert (ours.dtype, ours.shape) == (torch.float64, (3, 3))
    np.testing.assert_allclose(ours, np.cov(pixels.T, bias=True), rtol=1e-12)
    assert channel_covariance(bright[:, :1].split(7)).item() == pytest.approx(pixels[:, 0].var(), rel=1e-12)


@pytest.mark.parametrize("fitted", [channel_statistics, channel_mean, channel_covariance])
def test_an_empty_split_is_refused(fitted):
    for nothing in ([], [torch.empty(0, 3, 8, 8, dtype=torch.uint8)]):
        with pytest.raises(UserError, match=r"empty train split\. Check the splits' fractions"):
            fitted(nothing)


def test_a_constant_channel_has_a_mean_but_no_deviation_to_divide_by():
    constant = torch.stack([torch.arange(4), torch.full((4,), 51)]).view(1, 2, 2, 2).to(torch.uint8)
    with pytest.raises(UserError, match="one value in channel 1"):
        channel_statistics([constant])
    assert channel_mean([constant]) == pytest.approx((1.5 / 255, 0.2))
