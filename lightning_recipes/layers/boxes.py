"""A rectangle of each sample of a batch: cropped, erased or cut out.

Pure functions: the draws come in as tensors, so each one can be held against its torchvision counterpart.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from ..utils.errors import UserError

Box: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""First row, row behind the last, first column and column behind the last, int64 (B,) each."""

_LARGE = 8192  # values of a sample, as of 3 × 52 × 52: both ways take about as long on a CPU


def shift_flip(
    images: Tensor, dy: Tensor, dx: Tensor, flip: Tensor, pad: int, size: tuple[int, int] | None = None
) -> Tensor:
    """Pad with zeros, crop at an offset of its own for each sample, mirror where asked.

    Args:
        images: (B, C, H, W), any dtype.
        dy: Top of the crop in the padded image, int64 (B,), in [0, H + 2·pad - h].
        dx: Left of the crop, likewise.
        flip: Whether to mirror the crop left to right, bool (B,).
        pad: Zeros on each side, pixels.
        size: Height and width of the crop, (h, w); by default those of the image.

    Returns:
        (B, C, h, w), same dtype.

    Raises:
        UserError: The padded image is smaller than the crop.

    >>> x = torch.arange(4).view(1, 1, 2, 2)
    >>> one = torch.tensor([1])
    >>> shift_flip(x, one, one, torch.tensor([True]), 1).tolist()
    [[[[1, 0], [3, 2]]]]
    """
    height, width = size or images.shape[2:]
    _require_room(images, pad, height, width, "pad it")
    if slices_pay(images):
        return _shift_flip_slices(images, dy, dx, flip, pad, (height, width))
    batch, channels = images.shape[:2]
    padded = F.pad(images, (pad, pad, pad, pad))
    column = torch.arange(width, device=images.device)
    columns = dx[:, None] + torch.where(flip[:, None], width - 1 - column, column)  # (B, w)
    rows = dy[:, None] + torch.arange(height, device=images.device)  # (B, h)
    index = rows[:, :, None] * padded.shape[3] + columns[:, None, :]  # (B, h, w)
    index = index.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.view(batch, channels, -1).gather(2, index).view(batch, channels, height, width)


def _shift_flip_slices(
    images: Tensor, dy: Tensor, dx: Tensor, flip: Tensor, pad: int, size: tuple[int, int]
) -> Tensor:
    height, width = size
    make = images.new_zeros if pad else images.new_empty
    out = make((*images.shape[:2], height, width))
    for image, result, y, x, mirror in zip(
        images, out, (dy - pad).tolist(), (dx - pad).tolist(), flip.tolist(), strict=True
    ):
        top, left = max(y, 0), max(x, 0)
        bottom, right = max(min(y + height, image.shape[1]), top), max(min(x + width, image.shape[2]), left)
        seen = image[:, top:bottom, left:right]
        if mirror:
            result[:, top - y : bottom - y, width - right + x : width - left + x] = seen.flip(2)
        else:
            result[:, top - y : bottom - y, left - x : right - x] = seen
    return out


def scale_crop(image: Tensor, side: int, top: int, left: int, size: int) -> Tensor:
    """Resize the shorter side of one image, and crop a square.

    Args:
        image: (C, H, W), uint8 or float.
        side: The shorter side after resizing (bilinear, antialiased), pixels; at least `size`.
        top: First row of the crop in the resized image.
        left: First column.
        size: Side of the crop, pixels.

    Returns:
        (C, size, size), same dtype.

    Raises:
        UserError: The resized image is smaller than the crop.

    Source: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012;
    Simonyan and Zisserman, "Very Deep Convolutional Networks", 2015 (the random scale).
    """
    image = V.resize(image, [side], antialias=True)
    _require_room(image, 0, size, size, "resize it to more")
    cropped: Tensor = V.crop(image, top, left, size, size)
    return cropped


def erase(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Set a rectangle of each sample to zero; a height or width of 0 erases nothing.

    Args:
        images: (B, C, H, W).
        top: First row, int64 (B,).
        left: First column, int64 (B,).
        height: Rows, int64 (B,).
        width: Columns, int64 (B,).

    Returns:
        (B, C, H, W).

    Source: Zhong et al., "Random Erasing", 2020.
    """
    bottom, right = top + height, left + width
    if slices_pay(images):
        images = images.clone()
        for image, *edges in zip(images, *edges_within(images, (top, bottom, left, right)), strict=True):
            image[:, edges[0] : edges[1], edges[2] : edges[3]] = 0
        return images
    return images.masked_fill(box_mask(images, (top, bottom, left, right)), 0)


def cutout(images: Tensor, row: Tensor, column: Tensor, side: Tensor) -> Tensor:
    """Set a square about a pixel of each sample to zero; what of it lies outside the image is lost.

    On normalised images zero is the mean of the train split, as in the paper.

    Args:
        images: (B, C, H, W).
        row: Of the centre, int64 (B,), in [0, H).
        column: Of the centre, int64 (B,), in [0, W).
        side: Pixels, int64 (B,); 0 cuts nothing.

    Returns:
        (B, C, H, W).

    >>> one = torch.tensor([1])
    >>> cutout(torch.ones(1, 1, 3, 4), one, one, 2 * one)[0, 0].int().tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]]

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """
    return erase(images, row - side // 2, column - side // 2, side, side)


def box_mask(images: Tensor, box: Box) -> Tensor:
    """Return which pixels lie in a sample's box, bool (B, 1, H, W)."""
    top, bottom, left, right = box
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    rows = (row >= top[:, None]) & (row < bottom[:, None])  # (B, H)
    columns = (column >= left[:, None]) & (column < right[:, None])  # (B, W)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def edges_within(images: Tensor, box: Box) -> list[list[int]]:
    """Return the box's four edges, within the image, as numbers."""
    height, width = images.shape[2:]
    return [
        edge.clamp(0, most).tolist() for edge, most in zip(box, (height, height, width, width), strict=True)
    ]


def slices_pay(images: Tensor) -> bool:
    """Return whether to copy one sample's slice after the other rather than to index the whole batch.

    Small samples are lost in the calls, large ones in the index, and on a GPU each call waits for the host.
    """
    return images.device.type == "cpu" and images[:1].numel() >= _LARGE


def _require_room(image: Tensor, pad: int, height: int, width: int, remedy: str) -> None:
    tall, wide = image.shape[-2] + 2 * pad, image.shape[-1] + 2 * pad
    if tall < height or wide < width:
        raise UserError(
            f"An image must be at least as large as its crop of {height} × {width} pixels, got "
            f"{tall} × {wide}. Take a smaller crop, or {remedy}."
        )
