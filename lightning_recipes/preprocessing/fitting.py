"""A normalisation from the images of the train split."""

from __future__ import annotations

from collections.abc import Iterable
from math import isqrt, prod
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ..utils.errors import UserError
from .channels import EMPTY, channel_mean, channel_statistics
from .moments import Moments
from .normalization import Normalization

Fitted = Literal["mean_image", "channel_mean", "channel_mean_std", "pca", "whiten"]

EPSILON = 1e-5  # added to the variances that `whiten` divides by the root of; the handbook's
ROUNDING = 1 / (12 * 255**2)  # variance of what a byte rounds off, [0, 1] units squared
MOST_NUMBERS = 4096  # D of an image for `pca` and `whiten`: a matrix of 64 MiB in each checkpoint


def fit_normalization(images: Iterable[Tensor], mode: Fitted) -> Normalization:
    """Return the normalisation that these images ask for, in one pass over them.

    They are asked for one batch at a time, and none is kept: there may be more than memory holds.

    Args:
        images: uint8 (B, C, S, S), all but B alike.
        mode: `channel_mean_std` and `channel_mean` subtract a number a channel, the first also divides;
            `mean_image` subtracts an image; `pca` also rotates whole images so that their D = C·S·S numbers
            are uncorrelated, and `whiten` then divides each by its standard deviation.

    Raises:
        UserError: No image came, a channel to divide by is constant, or D is too large for a matrix.

    >>> images = torch.tensor([[[[0]]], [[[255]]]], dtype=torch.uint8)
    >>> fit_normalization(images.split(1), "channel_mean")
    Normalization(mean=(0.5,), std=(1.0,), matrix=None)
    """
    if mode == "channel_mean_std":
        return Normalization(*channel_statistics(images))
    if mode == "channel_mean":
        means = channel_mean(images)
        return Normalization(means, (1.0,) * len(means))
    linear = mode != "mean_image"
    moments, shape = Moments(covariance=linear), torch.Size()
    for batch in images:
        shape = batch.shape[1:]
        if linear and prod(shape) > MOST_NUMBERS:
            raise _too_large(mode, shape)
        moments.update(batch.flatten(1))
    if moments.count == 0:
        raise UserError(EMPTY)
    matrix = None
    if linear:
        variances, axes = principal_axes(moments.covariance / 255**2)
        matrix = axes if mode == "pca" else _whitening(variances, axes, moments.count)
    return Normalization((moments.mean / 255).view(shape), (1.0,) * shape[0], matrix)


def _whitening(variances: Tensor, axes: Tensor, count: int) -> Tensor:
    if flat := int((variances < ROUNDING).sum()):
        rank_zero_warn(
            f"`normalize: whiten` multiplies by about {EPSILON**-0.5:.0f} in {flat} of {len(variances)} "
            f"directions in which the {count} train images hardly differ. Images that do differ there, such "
            "as augmented or new ones, come out far too large. Set `augment: none` and give more images than "
            "directions, or set `normalize: channel_mean_std`."
        )
    return axes / (variances + EPSILON).sqrt()


def principal_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variances, largest first, and the directions that have them.

    The largest entry of each direction is positive, so that a covariance with distinct variances has one
    answer on any machine.

    Args:
        covariance: Symmetric, float64 (D, D).

    Returns:
        (D,), none below 0, and (D, D) with a direction a column.

    >>> variances, axes = principal_axes(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    >>> variances.tolist(), axes.tolist()
    ([4.0, 1.0], [[0.0, 1.0], [1.0, 0.0]])
    """
    variances, axes = torch.linalg.eigh(covariance)
    variances, axes = variances.flip(0).clamp_min(0), axes.flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))  # (1, D)
    return variances, axes * largest.sign()


def _too_large(mode: str, shape: torch.Size) -> UserError:
    channels, numbers = shape[0], prod(shape)
    return UserError(
        f"`normalize: {mode}` takes images of at most {MOST_NUMBERS} numbers, got "
        f"{' × '.join(map(str, shape))} = {numbers}: its matrix would take {numbers**2 * 4 / 2**30:.1f} GiB. "
        f"Set `image_size` to at most {isqrt(MOST_NUMBERS // channels)}, or `normalize: channel_mean_std`."
    )
