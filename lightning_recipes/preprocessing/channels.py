"""What the channels of all images are like: means, deviations and how the channels go together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..utils.errors import UserError
from .moments import Moments

EMPTY = "Cannot fit a normalisation on an empty train split. Check the splits' fractions."


def channel_statistics(images: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation in [0, 1] units, exactly, in one pass.

    Pixels are counted by value: the sums are integers, so that nothing is rounded and the order of the
    images changes nothing, where `Moments` would round.

    Args:
        images: uint8 tensors, (C, H, W) or (B, C, H, W), all with the same C.

    Raises:
        UserError: No image came, or a channel is constant.

    >>> channel_statistics([torch.tensor([[[0, 255]]], dtype=torch.uint8)])
    ((0.5,), (0.5,))
    """
    share, values = _shares(images)
    mean = share @ values
    std = ((values - mean[:, None]).square() * share).sum(1).sqrt()
    if (std == 0).any():
        raise UserError(
            f"Every pixel of the train split has one value in channel {int((std == 0).nonzero()[0])}. "
            "Check the images, or set `normalize: none`."
        )
    return tuple(mean.tolist()), tuple(std.tolist())


def channel_mean(images: Iterable[Tensor]) -> tuple[float, ...]:
    """Return each channel's mean in [0, 1] units, exactly, in one pass; a channel may be constant.

    Args:
        images: As for `channel_statistics`.

    Raises:
        UserError: No image came.

    >>> channel_mean([torch.tensor([[[0, 255]], [[51, 51]]], dtype=torch.uint8)])
    (0.5, 0.2)
    """
    share, values = _shares(images)
    return tuple((share @ values).tolist())


def channel_covariance(images: Iterable[Tensor]) -> Tensor:
    """Return the covariance of the channels over all pixels, in one pass: what PCA lighting draws from.

    Args:
        images: uint8 tensors, (B, C, H, W), all with the same C.

    Returns:
        float64 (C, C), in [0, 1] units.

    Raises:
        UserError: No image came.

    >>> pixels = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).view(1, 2, 1, 2)
    >>> channel_covariance([pixels])
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]], dtype=torch.float64)
    """
    moments = Moments(covariance=True)
    for batch in images:
        moments.update(batch.movedim(1, -1).flatten(0, -2))  # (pixels, C)
    if moments.count == 0:
        raise UserError(EMPTY)
    return moments.covariance / 255**2


def _shares(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return which share of a channel's pixels has each value, (C, 256), and the values, (256,); float64."""
    counts: Tensor | None = None  # (C, 256)
    for image in images:
        channels = image.reshape(-1, *image.shape[-3:]).transpose(0, 1).flatten(1)  # (C, pixels)
        here = torch.stack([torch.bincount(channel, minlength=256) for channel in channels])
        counts = here if counts is None else counts + here
    if counts is None or not counts.any():
        raise UserError(EMPTY)
    values = torch.arange(256, dtype=torch.float64) / 255
    return counts.double() / counts.sum(1, keepdim=True), values
