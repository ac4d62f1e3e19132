"""Learn a few samples by heart."""

from __future__ import annotations

from ..diagnosis.stages import OVERFIT
from .examining import Examining


class OverfitBatchCheck(Examining):
    """Check before the first step that a copy of the module can learn 32 samples by heart.

    The copy is trained on one fixed batch by the module's own step and optimizer, without schedule, until
    all answers are right and the loss is next to the least that it can be. Where that fails, it is tried
    with Adam at 1e-3, and then with one thing exchanged at a time (loss, inputs, initialization,
    regularization, modes, frozen weights): what repairs it is likely at fault. Nothing of the run changes;
    what is wrong is warned of.

    Args:
        strict: Whether what is wrong (WARN or FAIL) ends the run with an error.
        seconds: That all attempts may take together.

    Raises:
        UserError: `seconds` is not above 0; with `strict`, something is wrong.

    Source: Karpathy, "A Recipe for Training Neural Networks", 2019; Goodfellow et al., "Deep Learning", 11.5.

    >>> OverfitBatchCheck(seconds=10).strict
    False
    """

    stages = OVERFIT

    def __init__(self, *, strict: bool = False, seconds: float = 30.0) -> None:
        super().__init__(seconds=seconds, strict=strict)
