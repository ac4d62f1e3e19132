"""From stored pixels to what a network is fed: geometry, range and normalisation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from .utils.errors import UserError


@dataclass(frozen=True)
class Preprocessing:
    """How eval images are made; stored in the checkpoint, so that a checkpoint is enough to predict.

    Args:
        channels: 1 (grey) or 3 (RGB).
        image_size: Side of the square that the network sees, pixels.
        crop_pct: The shorter side is resized to `image_size / crop_pct`, then the centre is cropped.
        mean: Per channel, in units of [0, 1] pixels.
        std: Per channel, in units of [0, 1] pixels.
    """

    channels: int
    image_size: int
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, images: Tensor) -> Tensor:
        """Return (x/255 - mean)/std.

        Args:
            images: uint8, (B, C, H, W).

        Returns:
            float32, (B, C, H, W).
        """
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1) * 255
        return images.float().sub_(mean).div_(std)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, for a checkpoint."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Preprocessing:
        """Return what `to_dict` stored."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return cls(**plain)


def fit_geometry(image: Tensor, image_size: int, crop_pct: float = 1.0) -> Tensor:
    """Resize the shorter side (bilinear, antialiased), crop the centre square; uint8 in, uint8 out.

    Args:
        image: uint8, (C, h, w).
        image_size: Side of the result, pixels.
        crop_pct: Share of the resized shorter side that the crop keeps.

    Returns:
        uint8, (C, image_size, image_size).

    >>> fit_geometry(torch.zeros(3, 20, 30, dtype=torch.uint8), 16).shape
    torch.Size([3, 16, 16])
    """
    image = F.resize(image, [round(image_size / crop_pct)], antialias=True)
    cropped: Tensor = F.center_crop(image, [image_size, image_size])
    return cropped


def channel_statistics(images: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation in [0, 1] units, exactly, in one pass.

    Pixels are counted by value, so the sums are integers and the order of the images changes nothing.

    Args:
        images: uint8 tensors, (C, H, W) or (B, C, H, W), all with the same C.

    Raises:
        UserError: No image came, or a channel is constant.

    >>> channel_statistics([torch.tensor([[[0, 255]]], dtype=torch.uint8)])
    ((0.5,), (0.5,))
    """
    counts: Tensor | None = None  # (C, 256)
    for image in images:
        channels = image.reshape(-1, *image.shape[-3:]).transpose(0, 1).flatten(1)  # (C, pixels)
        here = torch.stack([torch.bincount(channel, minlength=256) for channel in channels])
        counts = here if counts is None else counts + here
    if counts is None:
        raise UserError("Cannot fit a normalisation on an empty train split. Check the splits' fractions.")
    share = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    std = ((values - mean[:, None]).square() * share).sum(1).sqrt()
    if (std == 0).any():
        raise UserError(
            f"Every pixel of the train split has one value in channel {int((std == 0).nonzero()[0])}. "
            "Check the images, or set `normalize: none`."
        )
    return tuple(mean.tolist()), tuple(std.tolist())


# Kept apart from `channel_statistics`: a fuller one of the same name is to take its place.
def channel_covariance(images: Iterable[Tensor]) -> Tensor:
    """Return the covariance of the channels over all pixels in [0, 1] units, (C, C) float64, in one pass.

    Sums of whole numbers are exact in float64 up to 10¹¹ pixels, so the order of the images changes nothing.

    Args:
        images: uint8 tensors, (C, H, W) or (B, C, H, W), all with the same C.

    Raises:
        UserError: No image came.

    >>> channel_covariance([torch.tensor([[[0, 255]], [[255, 0]]], dtype=torch.uint8)])
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]], dtype=torch.float64)
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for batch in images:
        for part in torch.split(batch.reshape(-1, *batch.shape[-3:]), 64):
            pixels = part.transpose(0, 1).flatten(1).double()  # (C, pixels)
            count += pixels.shape[1]
            total, products = total + pixels.sum(1), products + pixels @ pixels.T
    if not count:
        raise UserError("Cannot fit colours on an empty train split. Check the splits' fractions.")
    mean = total / count
    return (products / count - mean.outer(mean)) / 255**2
