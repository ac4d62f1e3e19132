"""Look at the loss before the first step."""

from __future__ import annotations

from ..diagnosis.stages import INITIAL_LOSS
from .examining import Examining


class InitialLossCheck(Examining):
    r"""Check the first loss before the first step: its size, what it is given, and what flows back.

    A model that knows nothing has a cross-entropy of :math:`\log K + \sigma_z^2/2`. The loss calls are
    observed within the module's own training step, on a copy, so that the logits are known: that they have
    not been through a softmax, that they do not know the labels, that the gradient at them has the sign and
    the size of a mean cross-entropy. Nothing of the run changes; what is wrong is warned of.

    Args:
        strict: Whether what is wrong (WARN or FAIL) ends the run with an error.
        seconds: That it may take; a few first batches are always looked at.

    Raises:
        UserError: `seconds` is not above 0; with `strict`, something is wrong.

    Source: Karpathy, "A Recipe for Training Neural Networks", 2019.

    >>> InitialLossCheck(strict=True).findings
    []
    """

    stages = INITIAL_LOSS

    def __init__(self, *, strict: bool = False, seconds: float = 20.0) -> None:
        super().__init__(seconds=seconds, strict=strict)
