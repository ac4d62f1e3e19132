"""Do the targets still tell the classes apart?"""

from __future__ import annotations

from torch import Tensor

from .finding import Finding

CHECK = "label smoothing"
HIGHEST = 0.5  # recipes use 0.1, seldom 0.2


def label_smoothing(value: float | Tensor) -> Finding:
    r"""Judge the smoothing, given as such or found in soft targets.

    Smoothing by :math:`\epsilon` leaves no class below :math:`\epsilon / K` in any row, which mixing samples
    does not: the least entry of all rows times K is taken for :math:`\epsilon`.

    Args:
        value: The loss's `label_smoothing`, or targets as probabilities, (N, K).

    >>> label_smoothing(0.9).causes
    ('label-smoothing-too-strong',)
    >>> label_smoothing(0.1).status
    'PASS'
    """
    if isinstance(value, Tensor) and value.ndim == 2:
        if len(value) < 16 or value.shape[1] < 2 or not value.is_floating_point():
            few = "There are fewer than 16 rows of probabilities, or fewer than two classes."
            return Finding(CHECK, "SKIP", few)
        if bool((value.detach().sum(1) - 1).abs().max() > 1e-2):
            return Finding(CHECK, "SKIP", "The targets are not probabilities of one class.")
        smoothing = float(value.detach().min()) * value.shape[1]
    else:
        smoothing = float(value)
    evidence = {"label_smoothing": smoothing}
    if smoothing > HIGHEST:
        message = f"Label smoothing {smoothing:.2g} leaves little of the labels; 0.1 is usual."
        return Finding(CHECK, "WARN", message, evidence, ("label-smoothing-too-strong",))
    return Finding(CHECK, "PASS", f"Label smoothing is {smoothing:.2g}.", evidence)
