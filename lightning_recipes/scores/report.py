"""What an ensemble is worth: each member, the pool, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..utils.errors import UserError
from .bootstrap import RESAMPLES, percentile_interval, resampled_means
from .measures import disagreement, ece_terms, score_terms
from .temperature import temper


class Estimate(NamedTuple):
    """A score and the bounds of its interval."""

    value: float
    low: float
    high: float


class Scored(NamedTuple):
    """What the members say of some samples.

    Attributes:
        probabilities: (M, N, K), of each member.
        targets: (N,).
    """

    probabilities: Tensor
    targets: Tensor


@dataclass(frozen=True)
class EnsembleRow:
    """The scores of a member, or of the pool.

    Args:
        name: Whose.
        accuracy: In [0, 1].
        nll: Nats.
        brier: In [0, 2].
        ece: In [0, 1].
        accuracy_gap: The member's accuracy less the ensemble's, on the same resamples; None for the pool.
        nll_gap: The member's NLL less the ensemble's; None for the pool.
    """

    name: str
    accuracy: Estimate
    nll: Estimate
    brier: Estimate
    ece: Estimate
    accuracy_gap: Estimate | None = None
    nll_gap: Estimate | None = None


@dataclass(frozen=True)
class EnsembleReport:
    """Scores of an ensemble and of its members on the same samples.

    Args:
        rows: Each member, "ensemble", and with a temperature "tempered".
        disagreement: Share of samples on which two members differ, averaged over the pairs.
        samples: N.
        temperature: Of the last row; None where there is none.
        level: Share of the resamples inside an interval.
        resamples: Number of bootstrap resamples.
    """

    rows: tuple[EnsembleRow, ...]
    disagreement: float
    samples: int
    temperature: float | None
    level: float
    resamples: int


def measure_ensemble(
    probabilities: Tensor,
    targets: Tensor,
    *,
    names: Sequence[str] | None = None,
    temperature: float | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> EnsembleReport:
    """Return the scores of each member and of their mean, with bootstrap intervals over whole samples.

    Args:
        probabilities: (M, N, K).
        targets: int64, (N,).
        names: Of the members, M; by default their numbers.
        temperature: Also measure the mean tempered with it. Fit it on other samples than these.
        level: Share of the resamples inside an interval.
        resamples: Number of bootstrap resamples; all rows share them.
        seed: The same seed gives the same intervals.

    Raises:
        UserError: The shapes do not fit, or a number is not a probability or a class.

    >>> members = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.6, 0.4]]])
    >>> report = measure_ensemble(members, torch.tensor([0, 1]))
    >>> [(row.name, row.accuracy.value) for row in report.rows]
    [('member 0', 1.0), ('member 1', 0.5), ('ensemble', 1.0)]
    """
    if probabilities.ndim != 3 or not len(probabilities):
        raise UserError(f"A report needs probabilities (M, N, K), got {tuple(probabilities.shape)}.")
    members = len(probabilities)
    pooled = probabilities.double().mean(0).to(probabilities.dtype)  # (N, K)
    sides = [*probabilities, pooled]
    titles = [*(names or [f"member {number}" for number in range(members)]), "ensemble"]
    if temperature is not None:
        sides.append(temper(pooled, temperature))
        titles.append("tempered")
    terms = torch.stack(
        [torch.cat([score_terms(side, targets), ece_terms(side, targets)], 1) for side in sides], 1
    )  # (N, S, 3 + bins)
    means = resampled_means(terms.flatten(1), resamples=resamples, seed=seed)
    values = _scores(terms.mean(0))  # (S, 4)
    draws = _scores(means.view(-1, *terms.shape[1:]))  # (R, S, 4)

    def estimate(value: Tensor, drawn: Tensor) -> Estimate:
        return Estimate(float(value), *percentile_interval(drawn, level=level))

    rows = []
    for side, (name, _) in enumerate(zip(titles, sides, strict=True)):
        scores = [estimate(values[side, score], draws[:, side, score]) for score in range(4)]
        gaps = [
            estimate(
                values[side, score] - values[members, score], draws[:, side, score] - draws[:, members, score]
            )
            for score in (0, 1)
            if side < members
        ]
        rows.append(EnsembleRow(name, *scores, *gaps))
    return EnsembleReport(
        tuple(rows), disagreement(probabilities), len(targets), temperature, level, resamples
    )


def _scores(means: Tensor) -> Tensor:
    """Return accuracy, NLL, Brier score and calibration error, (..., 4), of mean terms, (..., 3 + bins)."""
    return torch.cat([means[..., :3], means[..., 3:].abs().sum(-1, keepdim=True)], -1)
