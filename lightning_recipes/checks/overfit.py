"""A few samples that must be learned by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan

from .finding import Finding

CHECK = "overfit"
NEAR_FLOOR = 0.05  # of the way from the first loss down to the least possible, or of the first slope


@dataclass(frozen=True)
class Learned:
    """How one attempt went.

    Args:
        first: Loss before the first step.
        last: Loss at the end, in evaluation of what was trained.
        floor: The least that the loss can be.
        accuracy: At the end, 0 to 1; None where there are no classes.
        slope: Of the loss by what it was given, at the end, over that at the beginning; NaN where not known.
            At the least loss it is 0, also where `floor` is not known: blends, soft targets, auxiliary terms.
        steps: How many were taken.
        cut_off: Time ran out before `steps` were taken that would have been.
        improving: The loss was still falling clearly at the end.
        error: What was raised, if anything.
    """

    first: float
    last: float
    floor: float = 0.0
    accuracy: float | None = None
    slope: float = nan
    steps: int = 0
    cut_off: bool = False
    improving: bool = False
    error: str = ""

    @property
    def share(self) -> float:
        """Return which share of the way down is left, 1 at the beginning and 0 at the floor."""
        room = self.first - self.floor
        return (self.last - self.floor) / room if room > 1e-12 else 0.0

    @property
    def passed(self) -> bool:
        """Return whether all samples are right and the loss is next to its floor."""
        if self.error or not isfinite(self.last):
            return False
        if self.first - self.floor < 1e-3:  # began at the floor: a memory already
            return self.accuracy in (None, 1.0)
        return (self.share <= NEAR_FLOOR or self.slope <= NEAR_FLOOR) and self.accuracy in (None, 1.0)

    def said(self) -> str:
        """Return the figures as a phrase."""
        if self.error:
            return self.error
        right = "" if self.accuracy is None else f", {self.accuracy:.0%} right"
        return f"loss {self.first:.3g} to {self.last:.3g}{right} in {self.steps} steps"


SWAPS: dict[str, tuple[str, ...]] = {
    "optimizer": ("learning-rate-too-high", "learning-rate-too-low", "optimizer-settings"),
    "loss": ("wrong-loss", "loss-sign-flipped", "softmax-before-cross-entropy"),
    "inputs": ("input-scale", "raw-pixels", "non-finite-input"),
    "initialization": ("initialization-too-large", "zero-initialization", "dead-relu"),
    "regularization": ("weight-decay-too-high", "dropout-too-strong", "label-smoothing-too-strong"),
    "modes": ("eval-mode-in-training", "batch-norm-statistics"),
    "frozen weights": ("frozen-backbone", "detached-backbone"),
}


@dataclass(frozen=True)
class Attempts:
    """All attempts on one batch.

    Args:
        own: With the user's settings; regularisation off where that made it pass.
        adam: With Adam at 1e-3; None where it was not needed.
        swaps: What came of swapping one thing at a time, by its name in `SWAPS`.
        samples: How many samples there were.
        note: What was done otherwise than asked for.
    """

    own: Learned
    adam: Learned | None = None
    swaps: Mapping[str, Learned] = field(default_factory=dict)
    samples: int = 32
    note: str = ""


def overfit(attempts: Attempts, suspects: Sequence[str] = ()) -> Finding:
    """Judge whether a few samples can be learned by heart, and name what stood in the way.

    Both optimizers fail: the model or the loss is at fault, FAIL. Only the user's fails: the optimizer, WARN,
    for a slow optimizer may need more steps than there was time for.

    Args:
        attempts: What was tried.
        suspects: Causes that other checks name; those that fit a swap which repairs come first.

    Source: lecture, step 2, and "Babysitting the learning process".

    >>> overfit(Attempts(Learned(2.3, 0.01, accuracy=1.0, steps=40))).status
    'PASS'
    >>> stuck = Learned(2.3, 2.3, accuracy=0.1, steps=100)
    >>> overfit(Attempts(stuck, Learned(2.3, 0.01, accuracy=1.0, steps=40))).causes[0]
    'optimizer-settings'
    """
    own, adam = attempts.own, attempts.adam
    some = f"{attempts.samples} samples" + (f" ({attempts.note})" if attempts.note else "")
    evidence: dict[str, object] = {"own": _numbers(own), "samples": attempts.samples}
    if adam is not None:
        evidence["adam"] = _numbers(adam)
    evidence["swaps"] = {name: _numbers(result) for name, result in attempts.swaps.items()}
    if own.passed:
        return Finding(CHECK, "PASS", f"{some} are learned by heart: {own.said()}", evidence)
    repairs = [name for name, result in attempts.swaps.items() if result.passed]
    if adam is not None and adam.passed:
        if own.share < 0.5 and own.improving:
            said = f"{some} are being learned, slowly: {own.said()}; Adam at 1e-3: {adam.said()}"
            return Finding(CHECK, "INFO", said, evidence, ("learning-rate-too-low", "optimizer-settings"))
        said = f"{some} are not learned: {own.said()}; Adam at 1e-3 does it: {adam.said()}"
        causes = _ordered(suspects, ("optimizer-settings", *SWAPS["optimizer"]))
        return Finding(CHECK, "WARN", said, evidence, causes)
    if own.cut_off or (adam is not None and adam.cut_off and adam.improving):
        said = f"no time to learn {some}: {own.said()}; give it more `seconds`"
        return Finding(CHECK, "SKIP", said, evidence)
    learning = [r for r in (own, adam) if r is not None and r.improving and r.share < 0.9]
    if learning and not repairs:
        said = f"{some} are being learned, slowly: " + "; ".join(r.said() for r in learning)
        return Finding(CHECK, "INFO", said, evidence, ("learning-rate-too-low", "vanishing-gradients"))
    said = f"{some} cannot be learned by heart: {own.said()}"
    if adam is not None:
        said += f"; Adam at 1e-3: {adam.said()}"
    if repairs:
        said += f"; it works with another {' or '.join(repairs)}"
    named = [slug for name in repairs for slug in SWAPS[name]]
    rest = () if repairs else ("wrong-loss", "vanishing-gradients", "input-ignored")
    return Finding(CHECK, "FAIL", said, evidence, _ordered(suspects, (*named, *rest)))


def _ordered(suspects: Sequence[str], causes: Sequence[str]) -> tuple[str, ...]:
    """Return the suspects first, then what the swaps suggest, each once."""
    return tuple(dict.fromkeys([*suspects, *causes]))


def _numbers(result: Learned) -> dict[str, object]:
    return {
        "first": result.first,
        "last": result.last,
        "floor": result.floor,
        "accuracy": result.accuracy,
        "slope": result.slope,
        "steps": result.steps,
        "passed": result.passed,
    }
