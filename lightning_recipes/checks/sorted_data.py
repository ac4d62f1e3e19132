"""Do the batches mix the classes, as shuffled data does?"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import torch
from torch import Tensor

from .finding import Finding

CHECK = "sorted data"
ALPHA = 1e-6


def sorted_data(
    batches_of_targets: Sequence[Tensor], *, pool: Tensor | None = None, sampled: bool = False
) -> Finding:
    r"""Compare the number of distinct labels of each batch with that of random batches.

    Whether label :math:`k` is in batch :math:`b` are events that shun one another, so that the bound of
    Chernoff for independent events holds, and p is never too small:

    .. math:: p \le \min_t e^{tD} \prod_{b,k} (1 - q_{bk} + q_{bk} e^{-t})

    with D the sum of distinct labels and q the probability that a random batch holds the label.
    More distinct labels than by chance, as in balanced batches, are fine.

    Args:
        batches_of_targets: Labels of successive batches, (B,) each, or probabilities (B, K).
        pool: Labels of all the training data, (N,); by default those of the batches. With sorted data, a few
            batches may hold one label only, and tell nothing without it.
        sampled: Whether a sampler was chosen on purpose, which may have its reasons.

    Source: Dubhashi and Ranjan, "Balls and Bins: A Study in Negative Dependence", 1998.

    >>> sorted_data([torch.full((32,), label) for label in range(10)]).status
    'FAIL'
    >>> sorted_data([torch.randperm(32) % 10 for label in range(10)]).status
    'PASS'
    """
    if sampled:
        return Finding(CHECK, "SKIP", "The batches come from a sampler that was chosen on purpose.")
    batches = [_labels(batch) for batch in batches_of_targets if len(batch)]
    if len(batches) < 2:
        return Finding(CHECK, "SKIP", "Fewer than two batches were seen.")
    everything = torch.cat(batches) if pool is None else _labels(pool)
    values, counts = torch.unique(everything, return_counts=True)
    if len(values) < 2:
        return Finding(CHECK, "SKIP", "Only one label was seen: order cannot be told.")
    if len(values) > 0.5 * len(everything):
        return Finding(CHECK, "SKIP", "Most labels occur once: these are no classes.")
    distinct = [len(torch.unique(batch)) for batch in batches]
    held = torch.stack([_probability_held(counts, len(batch)) for batch in batches])  # (batches, classes)
    expected, p = float(held.sum()) / len(batches), _at_most(sum(distinct), held)
    mean = sum(distinct) / len(batches)
    evidence = {"batches": len(batches), "distinct": mean, "expected": expected, "p": p}
    measured = f"A batch holds {mean:.1f} distinct labels, where shuffled data has {expected:.1f}"
    if p < ALPHA:
        return Finding(
            CHECK, "FAIL", f"{measured} (p < {max(p, 1e-300):.0e}).", evidence, ("unshuffled-data",)
        )
    return Finding(CHECK, "PASS", f"{measured}.", evidence)


def _labels(targets: Tensor) -> Tensor:
    targets = targets.detach().cpu()
    return (targets.argmax(1) if targets.ndim == 2 and targets.shape[1] > 1 else targets).flatten()


def _probability_held(counts: Tensor, size: int) -> Tensor:
    """Return for each label the probability that a batch drawn without replacement holds it."""
    total = int(counts.sum())
    others = total - counts.double()
    if size >= total:
        return torch.ones_like(others)
    log_missing = (
        torch.lgamma(others + 1)
        - torch.lgamma((others - size).clamp(min=0) + 1)
        - torch.lgamma(torch.tensor(total + 1.0, dtype=torch.double))
        + torch.lgamma(torch.tensor(total - size + 1.0, dtype=torch.double))
    )
    return torch.where(others >= size, 1 - log_missing.exp(), torch.ones_like(others)).clamp(0, 1)


def _at_most(seen: int, probabilities: Tensor) -> float:
    """Return Chernoff's bound of the probability that at most so many of the events happen."""
    if seen >= float(probabilities.sum()):
        return 1.0
    rates = torch.logspace(-3, 2, 200, dtype=torch.double)[:, None]  # (200, 1)
    q = probabilities.double().flatten()
    # In logarithms: with 1 - q below the precision of a number, 1 - q + q exp(-t) would be 0.
    bounds = rates[:, 0] * seen + torch.logaddexp(torch.log1p(-q), q.log() - rates).sum(1)  # (200,)
    return exp(max(min(float(bounds.min()), 0.0), -700.0))
