"""How far a score would move on another sample of the same size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..utils.errors import UserError

RESAMPLES = 1000  # Efron and Tibshirani, section 13.3, for percentile intervals
_BLOCK = 2**24  # counts held at once: 128 MiB of float64


def resampled_means(terms: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """Return the column means of `resamples` draws of N rows with replacement: float64, (R, C).

    All columns see the same draws, so that differences between columns are paired.

    Args:
        terms: (N, C), a row a sample.
        resamples: R.
        seed: The same seed draws the same rows.

    Raises:
        UserError: `resamples` is below 1.

    >>> resampled_means(torch.ones(4, 2), resamples=3)
    tensor([[1., 1.],
            [1., 1.],
            [1., 1.]], dtype=torch.float64)
    """
    if resamples < 1:
        raise UserError(f"`resamples` must be at least 1, got {resamples}. 1000 is usual.")
    samples, generator = len(terms), torch.Generator().manual_seed(seed)
    exact, means, left = terms.double().cpu(), [], resamples
    while left:
        rows = min(left, max(_BLOCK // samples, 1))
        drawn = torch.randint(samples, (rows, samples), generator=generator)
        counts = torch.zeros(rows, samples, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones((), dtype=torch.float64).expand_as(drawn))
        means.append(counts @ exact / samples)  # (rows, C)
        left -= rows
    return torch.cat(means)


def percentile_interval(draws: Tensor, *, level: float = 0.95) -> tuple[float, float]:
    """Return the bounds between which the middle `level` of `draws`, (R,), lies.

    Raises:
        UserError: `level` is not in (0, 1).
    """
    if not 0 < level < 1:
        raise UserError(f"`level` must lie in (0, 1), got {level}. 0.95 is usual.")
    tail = (1 - level) / 2
    low, high = draws.double().quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def bootstrap_interval(
    terms: Tensor,
    statistic: Callable[[Tensor], Tensor] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a score, resampling whole samples.

    Of the difference of two models, give the differences of their terms: each resample then measures both
    on the same samples.

    Args:
        terms: What each sample adds to the score, (N,) or (N, C).
        statistic: From means (R, C) to scores (R,); by default the mean of the only column.
        level: Share of the resamples inside the interval.
        resamples: R.
        seed: The same seed draws the same samples.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    >>> bootstrap_interval(torch.full((10,), 0.5))
    (0.5, 0.5)
    """
    means = resampled_means(terms.reshape(len(terms), -1), resamples=resamples, seed=seed)
    return percentile_interval(means[:, 0] if statistic is None else statistic(means), level=level)
