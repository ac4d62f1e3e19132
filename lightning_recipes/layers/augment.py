"""Augmentation of a whole batch at once, with a draw for each sample.

Pure functions: the draws come in as tensors, so each one can be held against its torchvision counterpart.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from ..utils.errors import UserError


def shift_flip(
    images: Tensor, dy: Tensor, dx: Tensor, flip: Tensor, pad: int, size: tuple[int, int] | None = None
) -> Tensor:
    """Pad with zeros, crop at an offset of its own for each sample, mirror where asked: one gather.

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
    batch, channels, full_height, full_width = images.shape
    height, width = size or (full_height, full_width)
    padded = F.pad(images, (pad, pad, pad, pad))
    _require_room(padded, height, width, "pad it")
    column = torch.arange(width, device=images.device)
    columns = dx[:, None] + torch.where(flip[:, None], width - 1 - column, column)  # (B, w)
    rows = dy[:, None] + torch.arange(height, device=images.device)  # (B, h)
    index = rows[:, :, None] * padded.shape[3] + columns[:, None, :]  # (B, h, w)
    index = index.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.view(batch, channels, -1).gather(2, index).view(batch, channels, height, width)


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
    _require_room(image, size, size, "resize it to more")
    cropped: Tensor = V.crop(image, top, left, size, size)
    return cropped


def _require_room(image: Tensor, height: int, width: int, remedy: str) -> None:
    if image.shape[-2] < height or image.shape[-1] < width:
        raise UserError(
            f"An image must be at least as large as its crop of {height} × {width} pixels, got "
            f"{image.shape[-2]} × {image.shape[-1]}. Take a smaller crop, or {remedy}."
        )


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


def affine(
    scale: Tensor, centre: Tensor, angle: Tensor, shear: Tensor, flip: Tensor, shift: Tensor | None = None
) -> Tensor:
    """Return the map that crops (scale, centre), mirrors, shears, turns and moves, for `warp`.

    Args:
        scale: Height and width of the crop as a share of the image, (B, 2).
        centre: Centre of the crop (y, x) in [-1, 1], (B, 2).
        angle: Radians, counter-clockwise on the screen, (B,).
        shear: Radians along x, (B,).
        flip: Mirror left to right, bool (B,).
        shift: How far the result is moved, (y, x) in units of half the side, (B, 2); by default not at all.

    Returns:
        (B, 2, 3).
    """
    cosine, sine, mirror = angle.cos(), angle.sin(), 1 - 2 * flip.to(scale.dtype)
    turn = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)  # (B, 2, 2)
    lean = torch.eye(2, dtype=scale.dtype, device=scale.device).repeat(len(scale), 1, 1)
    lean[:, 0, 1] = shear.tan()
    stretch = torch.stack([mirror * scale[:, 1], scale[:, 0]], 1)  # rows are (x, y)
    linear = stretch[:, :, None] * (lean @ turn)
    offset = centre.flip(1)[:, :, None]  # (B, 2, 1)
    if shift is not None:
        offset = offset - linear @ shift.flip(1)[:, :, None]
    return torch.cat([linear, offset], 2)


def elastic_reach(sigma: float) -> int:
    """Return how many pixels the Gaussian of `elastic` reaches to each side: about 4σ, as torchvision's."""
    return (int(8 * sigma + 1) | 1) // 2  # the whole window has an odd number


def elastic(images: Tensor, noise: Tensor, alpha: float, sigma: float) -> Tensor:
    """Distort each sample by a smooth field of its own (bilinear, black beyond the image).

    The noise is smoothed by a Gaussian over a window of 4σ to each side, reflected at the borders; a value of
    1 then moves a pixel by α/2, so that α is torchvision's.

    Args:
        images: float, (B, C, H, W).
        noise: Uniform in [-1, 1], (B, 2, H, W): x and y.
        alpha: Strength, pixels.
        sigma: Standard deviation of the Gaussian, pixels; `elastic_reach(sigma)` must be below either side.

    Returns:
        float, (B, C, H, W).

    Source: Simard et al., "Best Practices for Convolutional Neural Networks Applied to Visual Document
    Analysis", 2003.
    """
    height, width = images.shape[2:]
    reach = elastic_reach(sigma)
    offset = torch.arange(-reach, reach + 1, dtype=noise.dtype, device=noise.device)
    weights = (-0.5 * (offset / sigma) ** 2).exp()
    weights = (weights / weights.sum()).view(1, 1, 1, -1)
    field = F.pad(noise.flatten(0, 1)[:, None], (reach, reach, reach, reach), mode="reflect")  # (2B, 1, ·, ·)
    field = F.conv2d(F.conv2d(field, weights), weights.mT).view(-1, 2, height, width)
    size = torch.tensor([width, height], dtype=noise.dtype, device=noise.device)
    still = torch.eye(2, 3, dtype=images.dtype, device=images.device).expand(len(images), -1, -1)
    grid = F.affine_grid(still, list(images.shape), align_corners=False)
    grid = grid + field.permute(0, 2, 3, 1) * (alpha / size)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


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


def lighting_axes(covariance: Tensor) -> Tensor:
    """Return what `lighting` adds for a draw of 1 along each principal component: λ_c p_c in row c.

    λ_c is an eigenvalue of the covariance, a variance and no standard deviation, as the paper has it; that
    depends on the unit, which is [0, 1] here. The sign of an eigenvector is fixed (its largest entry is
    positive), so that the same draws make the same images on every machine.

    Args:
        covariance: Of the channels over the pixels of the train split in [0, 1], (C, C).

    Returns:
        (C, C), float32, the largest eigenvalue first.

    >>> lighting_axes(torch.tensor([[0.04]]))
    tensor([[0.0400]])

    Source: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012.
    """
    values, vectors = torch.linalg.eigh(covariance.double())  # ascending; an eigenvector a column
    values, rows = values.flip(0), vectors.flip(1).T
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    axes: Tensor = values[:, None] * rows * largest.sign()
    return axes.float()


def lighting(images: Tensor, axes: Tensor, draws: Tensor) -> Tensor:
    """Add to every pixel of a sample one colour, Σ_c α_c λ_c p_c, drawn for the sample.

    Args:
        images: [0, 255], (B, C, H, W).
        axes: λ_c p_c in units of [0, 1] pixels, row by row, (C, C); see `lighting_axes`.
        draws: α, normal with a standard deviation of 0.1 in AlexNet, (B, C).

    Returns:
        float, (B, C, H, W); not clamped, so that the mean over draws is the image.
    """
    return images + 255 * (draws @ axes)[:, :, None, None]


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

    Source: Zhong et al., "Random Erasing", 2020.
    """
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    rows = (row >= top[:, None]) & (row < (top + height)[:, None])  # (B, H)
    columns = (column >= left[:, None]) & (column < (left + width)[:, None])  # (B, W)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


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
