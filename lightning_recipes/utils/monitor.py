"""What a callback that follows a metric asks: is the value new, and is it better?"""

from __future__ import annotations

from math import isfinite

from lightning.pytorch import Trainer
from torch import Tensor


def fresh_metrics(trainer: Trainer, *, on_step: bool = False) -> dict[str, Tensor]:
    """Return the metrics that the running phase has logged itself, by name.

    `trainer.callback_metrics` also holds what earlier phases logged: in it, a metric of every third epoch
    looks as if it had been measured three times.

    Args:
        trainer: In an epoch of training or validation.
        on_step: The values of the last batch instead of those of the epoch.
    """
    results = trainer._results
    return {} if results is None else dict(results.metrics(on_step)["callback"])


def is_better(new: float, best: float, *, mode: str, min_delta: float = 0.0, relative: bool = False) -> bool:
    """Return whether `new` beats `best` by more than `min_delta`.

    A value that is not finite beats nothing; every finite value beats one that is not.

    Args:
        new: The new value.
        best: The best so far; an infinity or NaN when there is none.
        mode: `min` or `max`.
        min_delta: At least 0.
        relative: Take `min_delta` as a fraction of the magnitude of `best`.

    >>> is_better(0.98, 1.0, mode="min", min_delta=0.05), is_better(0.9, 1.0, mode="min", min_delta=0.05)
    (False, True)
    """
    if not isfinite(new):
        return False
    if not isfinite(best):
        return True
    gain = best - new if mode == "min" else new - best
    return gain > (min_delta * abs(best) if relative else min_delta)
