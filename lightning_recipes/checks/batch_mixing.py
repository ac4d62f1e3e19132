"""Samples of a batch that see one another."""

from __future__ import annotations

from torch import Tensor

from .finding import Finding

CHECK = "batch mixing"
FLOAT32, FLOAT64 = 1e-4, 1e-9  # relative; in float64 rounding is at 1e-13


def moved_rows(before: Tensor, after: Tensor, index: int) -> float:
    """Return the largest relative change of a row other than `index`.

    Args:
        before: Outputs of a batch, (N, D).
        after: The same with another sample at `index`, (N, D).
        index: Of the sample that was exchanged, whose own row may change.

    Returns:
        The largest absolute change over the mean absolute value of `before`.

    >>> import torch
    >>> moved_rows(torch.ones(3, 2), torch.ones(3, 2) + torch.eye(3, 2), 0)
    1.0
    """
    size = before.double().abs().mean().clamp_min(1e-30)
    change = (after.double() - before.double()).abs().amax(1) / size
    change[index] = 0.0
    return float(change.max())


def batch_mixing(single: float, double: float | None) -> Finding:
    """Judge how far other samples' outputs moved when one sample was exchanged, all in eval mode.

    Args:
        single: `moved_rows` in float32.
        double: The same in float64; None where it was not needed.

    >>> batch_mixing(0.3, 0.3).causes
    ('batch-mixing',)
    """
    evidence = {"moved_float32": single, "moved_float64": double}
    if single <= FLOAT32 or double is None or double <= FLOAT64:
        return Finding(CHECK, "PASS", "No sample changes another one's output.", evidence)
    said = f"Exchanging one sample changes the others' outputs by {double:.2g}; expected 0."
    return Finding(CHECK, "FAIL", said, evidence, ("batch-mixing",))
