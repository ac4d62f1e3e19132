"""Blends of the samples of a batch, with a draw for each sample: mixup and cutmix.

Pure functions: the draws come in as tensors, so each one can be held against its torchvision counterpart.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..utils.errors import UserError
from .boxes import Box, box_mask, edges_within, slices_pay


def soft_targets(targets: Tensor, num_classes: int | None = None) -> Tensor:
    """Return targets as shares of the classes, float (B, K).

    Args:
        targets: int64 (B,), or shares already, float (B, K).
        num_classes: K; needed for int64 targets.

    Raises:
        UserError: `num_classes` is missing, or less than a target.

    >>> soft_targets(torch.tensor([1, 0]), 3)
    tensor([[0., 1., 0.],
            [1., 0., 0.]])
    """
    if targets.ndim > 1:
        return targets if targets.is_floating_point() else targets.float()
    if num_classes is None:
        raise UserError(
            "Targets of one number a sample need `num_classes`, got none. Give the number of classes."
        )
    if len(targets) and int(targets.max()) >= num_classes:
        raise UserError(
            f"`num_classes` must be above every target, got {num_classes} and a target of "
            f"{int(targets.max())}. Classes are counted from 0."
        )
    return F.one_hot(targets, num_classes).float()


def mixup(
    images: Tensor, targets: Tensor, *, lam: Tensor, permutation: Tensor, num_classes: int | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\lambda x_i + (1 - \lambda) x_{\pi(i)}`, and the same of the targets.

    Args:
        images: float, (B, C, H, W), normalised or not.
        targets: int64 (B,), or float (B, K).
        lam: λ, share of the sample itself, in [0, 1], (B,).
        permutation: π, the partner of each sample, int64 (B,).
        num_classes: K; needed for int64 targets.

    Returns:
        Images (B, C, H, W) and targets, float (B, K).

    Raises:
        UserError: A batch of one sample, or targets that cannot be blended.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.

    >>> images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    >>> lam, swap = torch.tensor([0.9, 0.6]), torch.tensor([1, 0])
    >>> mixed, soft = mixup(images, torch.tensor([0, 1]), lam=lam, permutation=swap, num_classes=2)
    >>> mixed.flatten(), soft
    (tensor([0.1000, 0.6000]), tensor([[0.9000, 0.1000],
            [0.4000, 0.6000]]))
    """
    require_partners(len(images))
    return _blend(images, lam.view(-1, 1, 1, 1), permutation), _blend(
        soft_targets(targets, num_classes), lam.view(-1, 1), permutation
    )


def cutmix(
    images: Tensor,
    targets: Tensor,
    *,
    box: Box,
    permutation: Tensor,
    num_classes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Paste a box of a partner into each sample; the targets are blended by the area that was pasted.

    Args:
        images: (B, C, H, W).
        targets: int64 (B,), or float (B, K).
        box: What is pasted, within the image; see `cut_box`.
        permutation: The partner of each sample, int64 (B,).
        num_classes: K; needed for int64 targets.

    Returns:
        Images (B, C, H, W) and targets, float (B, K).

    Raises:
        UserError: A batch of one sample, or targets that cannot be blended.

    Source: Yun et al., "CutMix", 2019.
    """
    require_partners(len(images))
    top, bottom, left, right = box
    kept = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])  # (B,)
    soft = _blend(soft_targets(targets, num_classes), kept.view(-1, 1), permutation)
    if not slices_pay(images):
        return torch.where(box_mask(images, box), images[permutation], images), soft
    mixed = images.clone()
    for image, partner, *edges in zip(mixed, permutation.tolist(), *edges_within(images, box), strict=True):
        place = slice(None), slice(edges[0], edges[1]), slice(edges[2], edges[3])
        image[place] = images[partner][place]
    return mixed, soft


def cut_box(lam: Tensor, row: Tensor, column: Tensor, *, height: int, width: int) -> Box:
    """Return the boxes that take 1 - λ of the area about a centre, as far as they lie within the image.

    Args:
        lam: Share of the image that is kept, (B,).
        row: Of the centre, int64 (B,).
        column: Of the centre, int64 (B,).
        height: Of the images, pixels.
        width: Of the images, pixels.

    >>> quarter, four = torch.tensor([0.75]), torch.tensor([4])
    >>> [int(edge) for edge in cut_box(quarter, four, 0 * four, height=8, width=8)]
    [2, 6, 0, 2]
    """
    half = 0.5 * (1 - lam).sqrt()
    tall, wide = (half * height).long(), (half * width).long()
    return (
        (row - tall).clamp(0, height),
        (row + tall).clamp(0, height),
        (column - wide).clamp(0, width),
        (column + wide).clamp(0, width),
    )


def draw_lam(alpha: float, batch: int, generator: Generator) -> Tensor:
    """Return λ ~ Beta(α, α) for each sample, (batch,).

    With α 0.2 two of three blends are beyond 0.9 to 0.1; with 1, λ is uniform.
    """
    seed = int(torch.randint(2**32, (), generator=generator))  # torch's Beta takes no generator
    return torch.from_numpy(np.random.RandomState(seed).beta(alpha, alpha, batch)).float()


def require_partners(batch: int) -> None:
    """Refuse a batch in which there is nobody to mix with.

    Raises:
        UserError: It has one sample.
    """
    if batch < 2:
        raise UserError(
            f"Mixing needs batches of at least 2 samples, got {batch}. "
            "Raise `batch_size`, or leave out `mix`."
        )


def _blend(values: Tensor, share: Tensor, permutation: Tensor) -> Tensor:
    """Return share · values + (1 - share) · values of the partner; exactly `values` where share is 1."""
    return values[permutation].lerp_(values, share.to(values.dtype))
