"""Augmentation of a whole batch at once, with a draw for each sample.

Pure functions: the draws come in as tensors, so each one can be held against its torchvision counterpart.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def shift_flip(images: Tensor, dy: Tensor, dx: Tensor, flip: Tensor, pad: int) -> Tensor:
    """Pad with zeros, crop back at an offset of its own for each sample, mirror where asked: one gather.

    Args:
        images: (B, C, H, W), any dtype.
        dy: Top of the crop in the padded image, int64 (B,), in [0, 2·pad].
        dx: Left of the crop, likewise.
        flip: Whether to mirror the crop left to right, bool (B,).
        pad: Zeros on each side, pixels.

    Returns:
        (B, C, H, W), same dtype.

    >>> x = torch.arange(4).view(1, 1, 2, 2)
    >>> one = torch.tensor([1])
    >>> shift_flip(x, one, one, torch.tensor([True]), 1).tolist()
    [[[[1, 0], [3, 2]]]]
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad))
    column = torch.arange(width, device=images.device)
    columns = dx[:, None] + torch.where(flip[:, None], width - 1 - column, column)  # (B, W)
    rows = dy[:, None] + torch.arange(height, device=images.device)  # (B, H)
    index = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]  # (B, H, W)
    index = index.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.view(batch, channels, -1).gather(2, index).view(images.shape)


def warp(images: Tensor, theta: Tensor, outside: Literal["zeros", "border"] = "zeros") -> Tensor:
    """Resample each sample by an affine map of its own (bilinear).

    Args:
        images: float, (B, C, H, W).
        theta: (B, 2, 3), from output to input coordinates in [-1, 1]; as `torch.nn.functional.affine_grid`.
        outside: What is seen beyond the image: black, or its outermost pixels.

    Returns:
        float, (B, C, H, W).
    """
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def affine(scale: Tensor, centre: Tensor, angle: Tensor, shear: Tensor, flip: Tensor) -> Tensor:
    """Return the map that crops (scale, centre), mirrors, shears and turns, for `warp`.

    Args:
        scale: Height and width of the crop as a share of the image, (B, 2).
        centre: Centre of the crop (y, x) in [-1, 1], (B, 2).
        angle: Radians, counter-clockwise on the screen, (B,).
        shear: Radians along x, (B,).
        flip: Mirror left to right, bool (B,).

    Returns:
        (B, 2, 3).
    """
    cosine, sine, mirror = angle.cos(), angle.sin(), 1 - 2 * flip.to(scale.dtype)
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)  # (B, 2, 2)
    lean = torch.eye(2, dtype=scale.dtype, device=scale.device).repeat(len(scale), 1, 1)
    lean[:, 0, 1] = shear.tan()
    stretch = torch.stack([mirror * scale[:, 1], scale[:, 0]], 1)  # rows are (x, y)
    linear = stretch[:, :, None] * (lean @ turn)
    return torch.cat([linear, centre.flip(1)[:, :, None]], 2)


def jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Scale brightness, then contrast, then saturation, each by a factor of its own for each sample.

    Args:
        images: float in [0, 255], (B, C, H, W), C = 1 or 3.
        brightness: Factors, (B,); 1 changes nothing, as for the others.
        contrast: Factors, (B,), about the mean grey of the image.
        saturation: Factors, (B,), about each pixel's grey; no effect when C = 1.

    Returns:
        float in [0, 255], (B, C, H, W).
    """
    images = (images * brightness.view(-1, 1, 1, 1)).clamp_(0, 255)
    middle = _grey(images).mean((1, 2, 3), keepdim=True)
    images = torch.lerp(middle, images, contrast.view(-1, 1, 1, 1)).clamp_(0, 255)
    if images.shape[1] == 3:
        images = torch.lerp(_grey(images), images, saturation.view(-1, 1, 1, 1)).clamp_(0, 255)
    return images


def _grey(images: Tensor) -> Tensor:
    """Return the ITU-R 601 luma, (B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([0.2989, 0.587, 0.114], dtype=images.dtype, device=images.device)
    return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


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

    Source: DeVries and Taylor, "Cutout", 2017; Zhong et al., "Random Erasing", 2020.
    """
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    rows = (row >= top[:, None]) & (row < (top + height)[:, None])  # (B, H)
    columns = (column >= left[:, None]) & (column < (left + width)[:, None])  # (B, W)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)
