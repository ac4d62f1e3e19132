"""The square that a network sees, cut from an image of any shape."""

from __future__ import annotations

from torch import Tensor
from torchvision.transforms.v2 import functional as F


def fit_geometry(image: Tensor, image_size: int, crop_pct: float = 1.0) -> Tensor:
    """Resize the shorter side (bilinear, antialiased), crop the centre square; uint8 in, uint8 out.

    Args:
        image: uint8, (C, h, w).
        image_size: Side of the result, pixels.
        crop_pct: Share of the resized shorter side that the crop keeps.

    Returns:
        uint8, (C, image_size, image_size).

    >>> import torch
    >>> fit_geometry(torch.zeros(3, 20, 30, dtype=torch.uint8), 16).shape
    torch.Size([3, 16, 16])
    """
    image = F.resize(image, [round(image_size / crop_pct)], antialias=True)
    cropped: Tensor = F.center_crop(image, [image_size, image_size])
    return cropped
