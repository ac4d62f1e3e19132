"""Augmentation of a whole batch at once, with a draw for each sample.

Pure functions: the draws come in as tensors, so each one can be held against its torchvision counterpart.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


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
