"""A few samples learned by heart; what stands in the way when they are not; how far a step goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import nan
from typing import Any

from ..checks import Finding
from ..checks.gradients import check_clipping, check_vanishing
from ..checks.learning_rate import learning_rate
from ..checks.overfit import Attempts, Learned, overfit
from ..checks.symmetry import symmetry
from ..evidence.batches import joined, size_of, take
from ..evidence.memorizing import Attempt, memorize
from ..evidence.pace import pace
from .examination import Examination

SAMPLES, STEPS, PACE_STEPS = 32, 150, 20
CLIPPED_EARLY = (
    1e-3  # median coefficient; the first gradients may be large, so less than over a hundred steps
)
SWAPPED = ("loss", "inputs", "initialization", "regularization", "modes", "frozen weights")


def few_samples(examination: Examination) -> Any:  # noqa: ANN401 - batches have any form
    """Return one batch of 32 samples, or fewer where there are no more."""
    batches = examination.train.batches
    whole = batches[0]
    for number in range(1, len(batches)):
        if size_of(whole) >= SAMPLES:
            break
        whole = joined(batches[: number + 1])
    return take(whole, slice(SAMPLES)) if size_of(whole) > SAMPLES else whole


def rate(examination: Examination) -> Iterator[Finding]:
    """How far the first steps of the user's optimizer go at its peak rate, and what drives them."""
    measured = pace(examination.trials, few_samples(examination), PACE_STEPS, deadline=examination.until(0.4))
    examination.pace = measured
    if not measured.losses and (measured.error or examination.module.automatic_optimization):
        raise ValueError(measured.error or "the training step returns no loss")
    if not measured.steps:
        said = f"no optimizer step was taken in {PACE_STEPS} batches"
        yield Finding("learning rate", "FAIL", said, {"batches": PACE_STEPS}, ("missing-step",))
        return
    yield learning_rate(
        measured.ratios,
        measured.growth,
        losses=measured.losses if examination.module.automatic_optimization else (),
        predicted=measured.predicted,
        gradients=measured.gradient_norm,
        fine_tuning=examination.trained,
    )
    if measured.weights:
        yield symmetry(measured.weights)
    steps = range(1, len(measured.depth_ratios) + 1)
    if len(measured.first_updates) == len(steps):
        yield check_vanishing(steps, measured.depth_ratios, measured.first_updates)
    clipped = measured.clip_coefficients
    unknown = [nan] * len(clipped)
    yield check_clipping(range(len(clipped)), clipped, unknown, limit=CLIPPED_EARLY, fewest=PACE_STEPS // 2)


def by_heart(examination: Examination) -> Iterator[Finding]:
    """Whether a few samples can be learned by heart, and which one change makes it possible."""
    batch = few_samples(examination)
    size = size_of(batch)
    seen = examination.first.losses if examination.first is not None else []
    if seen and examination.module.automatic_optimization and all(loss is None for loss in seen):
        raise ValueError("the training step returns no loss")
    own = _learned(_attempt(examination, batch, 0.6))
    if own.passed:
        yield overfit(Attempts(own, samples=size, note=examination.trials.note))
        return
    adam = _learned(_attempt(examination, batch, 0.7, optimizer="adam"))
    swaps = {}
    opposed = len(examination.trainer.optimizers) > 1
    if not adam.passed and not opposed:
        for number, name in enumerate(SWAPPED):
            share = 0.7 + 0.2 * (number + 1) / len(SWAPPED)
            if time.monotonic() > examination.until(share):
                continue
            swaps[name] = _learned(_attempt(examination, batch, share, swap=name))
    attempts = Attempts(own, adam, swaps, samples=size, note=examination.trials.note)
    found = overfit(attempts, examination.causes())
    if opposed and found.status == "FAIL":
        said = "several optimizers, whose losses may be opposed, as those of a GAN: " + found.message
        found = Finding(found.check, "SKIP", said, found.evidence)
    yield found


def _attempt(
    examination: Examination, batch: Any, share: float, *, optimizer: str = "own", swap: str = ""
) -> Attempt:
    return memorize(
        examination.trials,
        batch,
        STEPS,
        deadline=max(examination.until(share), time.monotonic() + 0.02 * examination.seconds),
        enough=lambda attempt: _learned(attempt).passed,
        optimizer=optimizer,
        swap=swap,
    )


def _learned(attempt: Attempt) -> Learned:
    values = attempt.values()
    if not values:
        return Learned(nan, nan, error=attempt.error or "no loss was returned")
    late = values[-max(len(values) // 4, 1)]
    floor = attempt.floor if attempt.floor is not None else 0.0
    return Learned(
        first=values[0],
        last=values[-1],
        floor=floor,
        accuracy=attempt.accuracy(),
        slope=attempt.slope(),
        steps=len(values),
        cut_off=attempt.cut_off,
        improving=values[-1] < late - 0.02 * abs(values[0] - floor),
        error=attempt.error,
    )
