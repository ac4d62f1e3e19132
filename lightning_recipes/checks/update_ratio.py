"""Whether the steps have the right size for the weights that they move."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from statistics import median

from .finding import Finding, Status

CHECK = "update ratio"
# A pilot over nets and optimizers at their best rates, over the first five steps: 1.7e-4 to 2.7e-2. At ten
# times the rate 0.08 to 0.29, with which half still trained well; at a hundred times from 0.81 on.
USUAL = (1e-5, 3e-2)
TOO_HIGH = 0.3
TOO_HIGH_LASTING = 0.1
FIRST_STEPS = 5  # in which a rate that is too high shows before the weights have grown to it


def check_update_ratio(
    steps: Sequence[int],
    ratios: Sequence[Sequence[float]],
    *,
    layers: Sequence[str] = (),
    rates: Sequence[float] = (),
) -> Finding:
    r"""Judge the learning rate by :math:`\|\Delta w\| / \|w\|` of the layers.

    Looks at the first five steps, and at the median of all steps whose learning rate was at least half of
    the highest: warm-up and decay do not count. A magnitude, so at worst a WARN: AdamW at 100 times its best
    rate can sit at 4e-3, and fine-tuning may well go far below 1e-4.

    Args:
        steps: The measured steps, rising. (T,)
        ratios: One row a step, one value a layer; NaN where it was left out, infinity where a weight was no
            longer finite. (T, L)
        layers: Names of the layers, for the message. (L,)
        rates: Learning rates at those steps. (T,)

    Source: CS231n notes, "Neural Networks Part 3": about 1e-3, 1e-2 is okay.

    >>> check_update_ratio([1, 2], [[1e-3, 2e-3], [1e-3, 1e-3]]).status
    'PASS'
    >>> check_update_ratio([1, 2], [[0.9, 0.8], [0.7, 0.9]]).causes
    ('learning-rate-too-high',)
    """
    by_step = {step: [r for r in row if r == r] for step, row in zip(steps, ratios, strict=True)}
    medians = {step: median(row) for step, row in by_step.items() if row}
    if not medians:
        return Finding(CHECK, "SKIP", "No step of a weight was measured.")
    broken = next((step for step, row in by_step.items() if any(not isfinite(r) for r in row)), None)
    first = median([value for step, value in medians.items() if step <= FIRST_STEPS] or [0.0])
    known = {step: rate for step, rate in zip(steps, rates, strict=False) if isfinite(rate)}
    highest = max(known.values(), default=0.0)
    lasting = median(value for step, value in medians.items() if known.get(step, inf) >= highest / 2)
    evidence: dict[str, object] = {
        "median": lasting,
        "median_of_first_steps": first,
        "steps": len(medians),
        "first_non_finite_step": broken,
    }
    typical = {
        name: median(known_ratios)
        for column, name in enumerate(layers)
        if (known_ratios := [row[column] for row in ratios if row[column] == row[column]])
    }
    if typical:
        evidence["fastest_layer"] = max(typical, key=lambda name: typical[name])
        evidence["slowest_layer"] = min(typical, key=lambda name: typical[name])
    status: Status = "PASS"
    causes: tuple[str, ...] = ()
    said = f"A step moves the weights by {_size(lasting)} of their norm (median of {len(medians)} steps"
    said += f"; {_size(first)} in the first {FIRST_STEPS})" if first else ")"
    if broken is not None:
        status, causes = "WARN", ("learning-rate-too-high", "exploding-gradients")
        said = f"Weights were no longer finite at step {broken}; before, a step moved them by "
        before = [value for step, value in medians.items() if step < broken and isfinite(value)]
        said += f"{_size(median(before))} of their norm" if before else "an unknown part of their norm"
    elif first > TOO_HIGH or lasting > TOO_HIGH_LASTING:
        status, causes = "WARN", ("learning-rate-too-high",)
    elif lasting == 0:
        status, causes = "WARN", ("missing-step", "learning-rate-too-low")
    elif max(first, lasting) > USUAL[1]:
        status, causes = "INFO", ("learning-rate-too-high",)
    elif lasting < USUAL[0]:
        status, causes = "INFO", ("learning-rate-too-low",)
    return Finding(CHECK, status, f"{said}; about 1e-3 is usual, 1e-2 about okay.", evidence, causes)


def _size(value: float) -> str:
    return f"{value:.1e}"
