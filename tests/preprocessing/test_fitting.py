import weakref

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from lightning_recipes.preprocessing import Normalization, channel_covariance, fit_normalization
from lightning_recipes.preprocessing.fitting import principal_axes
from lightning_recipes.utils.errors import UserError

MODES = ("mean_image", "channel_mean", "channel_mean_std", "pca", "whiten")


def pictures(count=200, channels=1, size=4):
    """Images whose pixels go together, each direction with another variance."""
    generator = torch.Generator().manual_seed(0)
    numbers = channels * size**2
    free = torch.randn(count, numbers, generator=generator) * torch.linspace(5, 25, numbers)
    mixed = free @ torch.linalg.qr(torch.randn(numbers, numbers, generator=generator))[0] + 120
    return mixed.round().clamp(0, 255).to(torch.uint8).view(count, channels, size, size)


class Watched:
    """A stream of images that counts how many of its pieces anyone still holds."""

    most = 0

    def __iter__(self):
        living = weakref.WeakSet()
        for number in range(12):
            piece = pictures(20) + number  # a new tensor each
            living.add(piece)
            self.most = max(self.most, len(living))
            yield piece
            del piece


def flat(images):
    return images.flatten(1).numpy().astype(np.float64) / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_image_is_subtracted(channels):
    images = pictures(channels=channels)
    fitted = fit_normalization(images.split(32), "mean_image")
    expected = flat(images) - flat(images).mean(0)
    # float32 of numbers up to 255, divided by 255.
    np.testing.assert_allclose(fitted.apply(images).flatten(1), expected, rtol=0, atol=1e-7 * 5)


def test_the_channels_means_are_subtracted_and_nothing_is_divided():
    images = pictures(channels=3)
    fitted = fit_normalization(images.split(32), "channel_mean")
    normal = fitted.apply(images)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(normal[0] - normal[1], (images[0].float() - images[1].float()) / 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["pca", "whiten"])
def test_the_linear_map_is_the_handbook_s_by_numpy_and_torchvision(mode, channels):
    images = pictures(channels=channels)
    centred = flat(images) - flat(images).mean(0)
    axes, variances, _ = np.linalg.svd(centred.T @ centred / len(centred))
    expected = centred @ axes
    if mode == "whiten":
        expected /= np.sqrt(variances + 1e-5)
    fitted = fit_normalization(images.split(32), mode)
    ours = fitted.apply(images)
    assert ours.shape == images.shape
    assert ours.dtype == torch.float32
    signs = np.sign((ours.flatten(1).numpy() * expected).sum(0))  # numpy leaves them open
    np.testing.assert_allclose(ours.flatten(1), expected * signs, rtol=0, atol=2e-5)
    theirs = v2.LinearTransformation(fitted.matrix, fitted.mean.flatten())
    torch.testing.assert_close(ours, theirs(images.float() / 255), rtol=0, atol=2e-5)  # in another order


def test_rotated_images_are_uncorrelated_in_falling_order_and_whitened_ones_alike():
    images = pictures()
    rotated, white = (
        fit_normalization([images], mode).apply(images).flatten(1) for mode in ("pca", "whiten")
    )
    variances = rotated.double().var(0, correction=0)
    assert (variances.diff() <= 0).all()
    correlations = torch.corrcoef(rotated.double().T) - torch.eye(16)
    assert correlations.abs().max() < 1e-4
    assert torch.corrcoef(white.double().T).sub(torch.eye(16)).abs().max() < 1e-4
    shrunk = (variances / (variances + 1e-5)).sqrt()
    torch.testing.assert_close(white.double().std(0, correction=0), shrunk, rtol=1e-4, atol=1e-4)
    # A rotation keeps all distances.
    torch.testing.assert_close(
        torch.pdist(rotated[:20]), torch.pdist(images[:20].flatten(1) / 255), rtol=1e-5, atol=0
    )


def test_no_sign_is_left_to_chance():
    _, axes = principal_axes(torch.cov(pictures().flatten(1).T.double()))
    assert (axes.amax(0) == axes.abs().amax(0)).all()
    assert axes.min() < 0


def test_no_variance_is_below_0():
    assert principal_axes(torch.diag(torch.tensor([-1e-12, 1.0])))[0].tolist() == [1.0, 0.0]


def test_the_map_does_not_depend_on_the_pieces():
    images = pictures()
    whole = fit_normalization([images], "whiten")
    pieces = fit_normalization(images.split(7), "whiten")
    torch.testing.assert_close(whole.matrix, pieces.matrix, rtol=1e-5, atol=1e-5)  # kept in float32
    torch.testing.assert_close(whole.mean, pieces.mean, rtol=1e-6, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_no_more_than_two_pieces_are_there_at_a_time(mode):
    watched = Watched()
    fit_normalization(watched, mode)
    assert watched.most <= 2  # the one that is made, and the one before it


def test_no_more_are_there_for_the_channels_covariance():
    watched = Watched()
    channel_covariance(watched)
    assert watched.most <= 2


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_split_is_refused(mode):
    for nothing in ([], [torch.empty(0, 1, 8, 8, dtype=torch.uint8)]):
        with pytest.raises(UserError, match="Cannot fit a normalisation on an empty train split"):
            fit_normalization(nothing, mode)


def test_constant_pixels_are_no_obstacle_but_where_they_are_divided_by():
    images = pictures()
    images[:, :, 0] = 7
    for mode in ("mean_image", "pca", "whiten"):
        assert fit_normalization([images], mode).apply(images).isfinite().all()
    black = torch.zeros(20, 1, 4, 4, dtype=torch.uint8)
    assert not fit_normalization([black], "whiten").apply(black).any()
    with pytest.raises(UserError, match="one value in channel 0"):
        fit_normalization([black], "channel_mean_std")


def test_images_too_large_for_a_matrix_are_refused_before_all_are_read():
    def stream():
        yield torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
        raise AssertionError("read on")

    with pytest.raises(
        UserError, match=r"at most 4096 numbers, got 3 × 64 × 64 = 12288.* 0\.6 GiB.* at most 36,"
    ):
        fit_normalization(stream(), "whiten")
    fitted = fit_normalization([torch.zeros(2, 3, 64, 64, dtype=torch.uint8)], "mean_image")
    assert fitted.image_shape == (3, 64, 64)


def test_directions_of_which_nothing_is_known_are_warned_of_where_they_are_divided_by(recwarn):
    fit_normalization([pictures()], "whiten")
    fit_normalization([pictures(3)], "pca")
    assert not recwarn.list
    with pytest.warns(UserWarning, match="by about 316 in 2 of 16 directions in which the 15 train images"):
        fit_normalization([pictures(15)], "whiten")  # they span 14
    constant = pictures()
    constant[:, :, 0] = 7  # four pixels
    with pytest.warns(UserWarning, match="in 4 of 16 directions in which the 200 train images"):
        fit_normalization([constant], "whiten")


def test_what_is_fitted_is_equal_to_itself_only():
    fitted = [fit_normalization([pictures()], mode) for mode in MODES]
    again = [fit_normalization([pictures()], mode) for mode in MODES]
    assert fitted == again
    assert [hash(each) for each in fitted] == [hash(each) for each in again]
    assert sum(a == b for a in fitted for b in fitted) == len(MODES)
    assert fitted[0] != Normalization.none(1)
    assert fitted[0] != "mean_image"
