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
from ..evidence.freshness import looks_untrained
from ..evidence.memorizing import Attempt, memorize
from ..evidence.pace import pace
from ..evidence.trials import CannotTry
from .examination import Examination

SAMPLES, STEPS, PACE_STEPS = 32, 150, 20
LEAST = 0.02  # share of the time that each attempt has in any case
# Median clip coefficient; the first gradients may be large, so less than over a hundred steps.
CLIPPED_EARLY = 1e-3
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
    """How far the first steps of the user's optimizer go at its peak rate, and what drives them.

    Raises:
        CannotTry: There is nothing to train with, or the step raises at once.
    """
    _needs_loss(examination)
    measured = pace(
        examination.trials, few_samples(examination), PACE_STEPS, deadline=examination.until("pace")
    )
    examination.pace = measured
    if measured.error and not measured.losses:
        raise CannotTry(measured.error)
    if not measured.steps:
        said = f"No optimizer step was taken in {PACE_STEPS} batches."
        yield Finding("learning rate", "FAIL", said, {"batches": PACE_STEPS}, ("missing-step",))
        return
    if measured.cleared:
        said = "The gradients are zero when the optimizer steps, though the backward pass gave some."
        yield Finding("gradients of each step", "FAIL", said, {"steps": measured.steps}, ("missing-step",))
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


def _needs_loss(examination: Examination) -> None:
    if examination.lossless:
        raise CannotTry("The training step returns no loss.")
    groups = [group for optimizer in examination.trainer.optimizers for group in optimizer.param_groups]
    held = {id(parameter) for group in groups for parameter in group["params"]}
    if not held & {id(parameter) for parameter in examination.module.parameters()}:
        raise CannotTry("No optimizer holds a weight of the module.")


def by_heart(examination: Examination) -> Iterator[Finding]:
    """Whether a few samples can be learned by heart, and which one change makes it possible."""
    _needs_loss(examination)
    batch = few_samples(examination)
    size = size_of(batch)
    first = _attempt(examination, batch, examination.until("own attempt"))
    own = _learned(first)
    if own.passed:
        yield overfit(Attempts(own, samples=size, note=examination.trials.note))
        return
    if first.floor is None:
        said = f"The loss is no known function, and its least value not either: {own.said()}."
        yield Finding("overfit", "SKIP", said)
        return
    if len(examination.trainer.optimizers) > 1:
        said = f"Several optimizers may play against one another: {own.said()}."
        yield Finding("overfit", "SKIP", said)
        return
    adam = _learned(_attempt(examination, batch, examination.until("adam"), optimizer="adam"))
    swaps = {}
    if not adam.passed:
        for left, name in zip(range(len(SWAPPED), 0, -1), SWAPPED, strict=True):
            remaining = examination.until("swaps") - time.monotonic()
            if remaining > 0:
                until = time.monotonic() + remaining / left
                swaps[name] = _learned(_attempt(examination, batch, until, swap=name))
    attempts = Attempts(
        own, adam, swaps, samples=size, note=examination.trials.note, frozen=mostly_frozen(examination)
    )
    yield overfit(attempts, examination.causes())


def _attempt(
    examination: Examination,
    batch: Any,  # noqa: ANN401 - batches have any form
    until: float,
    *,
    optimizer: str = "own",
    swap: str = "",
) -> Attempt:
    return memorize(
        examination.trials,
        batch,
        STEPS,
        deadline=max(until, time.monotonic() + LEAST * examination.seconds),
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


def mostly_frozen(examination: Examination) -> bool:
    """Return whether most weights are frozen, and not by accident: they are trained already."""
    sizes = {True: 0, False: 0}
    for parameter in examination.module.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    names = [name for name, p in examination.module.named_parameters() if not p.requires_grad]
    return sizes[False] > sizes[True] and looks_untrained(examination.module, names=names) is not True
