"""A learning rate that is far too high or far too low, from a few steps on one batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from statistics import median

from .finding import Finding

CHECK = "learning rate"
# Healthy first updates: 1.7e-4 to 2.7e-2 of the weights; at ten times the rate 0.08 to 0.29.
HIGH, GROWN = 0.5, 5.0
# A hundredth of a good rate (AdamW and SGD; CNN, ResNet, ViT): 9e-4 to 2.1e-3 of the loss a step, by steps of
# at most 7e-4 of the weights; good rates 3.7e-3 and more, by steps of 5e-3. Deep nets without norms lose 5e-4
# of the loss a step at first with Adam at 3e-4, by steps of 3e-3.
STRAIGHT, SLOW, SMALL = 0.98, 4e-3, 1e-3


def learning_rate(
    update_ratios: Sequence[float],
    growth: float,
    *,
    losses: Sequence[float] = (),
    predicted: Sequence[float] = (),
    gradients: Sequence[float] = (),
    floor: float = 0.0,
    fine_tuning: bool = False,
) -> Finding:
    r"""Judge the rate by how far the first steps go, and by how much of what they promise they keep.

    Too high where the median :math:`\|\Delta W_t\|/\|W_0\|` of the first five steps is beyond 0.5, or the
    norm of the weights grows fivefold. Too low where steps keep all of the decrease that the gradient
    predicts (the loss is a straight line that far) and this is next to nothing.

    Args:
        update_ratios: Of steps 1 to 5, the median over weights with two or more dimensions.
        growth: Norm of the weights after the last step over that before the first.
        losses: On the same batch before each step.
        predicted: The decrease that the gradient predicts for each step, g·Δw.
        gradients: Norm of the gradient of each step.
        floor: The least that the loss can be.
        fine_tuning: Weights are trained already, so that small steps are right.

    >>> learning_rate([1e-3] * 5, 1.0).status, learning_rate([0.9] * 5, 2.0).causes[0]
    ('PASS', 'learning-rate-too-high')
    >>> slow = [2.3 - 1e-4 * t for t in range(20)]
    >>> learning_rate([1e-6] * 5, 1.0, losses=slow, predicted=[1e-4] * 19).causes[0]
    'learning-rate-too-low'
    """
    early = [ratio for ratio in update_ratios[:5] if isfinite(ratio)]
    first = median(early) if early else nan
    evidence: dict[str, object] = {"first_updates": first, "growth": growth}
    if (update_ratios and not early) or not isfinite(growth):
        said = "The weights are not finite after a few steps."
        causes: tuple[str, ...] = ("learning-rate-too-high", "exploding-gradients", "non-finite-input")
        return Finding(CHECK, "FAIL", said, evidence, causes)
    if not early:
        return Finding(CHECK, "SKIP", "No step was taken.")
    if max(early) == 0.0 and gradients and max(gradients) == 0.0:
        said = "The gradient is zero in every step."
        causes = ("dead-relu", "zero-initialization", "vanishing-gradients", "loss-detached")
        return Finding(CHECK, "FAIL", said, evidence, causes)
    if max(early) == 0.0:
        said = "The weights do not change."
        causes = ("missing-step", "learning-rate-too-low", "frozen-backbone")
        return Finding(CHECK, "FAIL", said, evidence, causes)
    if first > HIGH or growth > GROWN:
        said = f"A step changes the weights by {first:.2g} of their size; expected about 1e-3."
        if first <= HIGH:
            said = f"The weights have grown {growth:.1f}-fold; expected less than {GROWN:g}."
        causes = ("learning-rate-too-high", "exploding-gradients", "initialization-too-small")
        return Finding(CHECK, "FAIL", said, evidence, causes)
    slow = _slow(losses, predicted, floor)
    small = median(update_ratios) < SMALL
    if slow is not None and slow[0] >= STRAIGHT and slow[1] < SLOW and small and not fine_tuning:
        evidence |= {"kept_of_predicted": slow[0], "relative_decrease": slow[1]}
        said = (
            f"Each step lowers the loss by {slow[1]:.2g} of itself, expected above {SLOW:g}, "
            f"and keeps {slow[0]:.0%} of what the gradient promises: there is room for a higher rate."
        )
        causes = ("learning-rate-too-low", "gradient-clipping-too-strong")
        return Finding(CHECK, "WARN", said, evidence, causes)
    return Finding(CHECK, "PASS", f"A step changes the weights by {first:.2g} of their size.", evidence)


def _slow(losses: Sequence[float], predicted: Sequence[float], floor: float) -> tuple[float, float] | None:
    """Return actual over predicted decrease, and the relative one a step (medians); None with few steps."""
    steps = min(len(losses) - 1, len(predicted))
    if steps < 8:
        return None
    kept = [(losses[t] - losses[t + 1]) / predicted[t] for t in range(steps) if predicted[t] > 0]
    relative = [(losses[t] - losses[t + 1]) / max(abs(losses[t] - floor), 1e-12) for t in range(steps)]
    if len(kept) < steps / 2:
        return None
    return median(kept), median(relative)
