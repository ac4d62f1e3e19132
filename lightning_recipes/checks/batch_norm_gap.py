"""Running statistics that do not fit the batches."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import mean, stdev

from .finding import Finding

CHECK = "batch norm"
FACTOR, Z_LIMIT = 3.0, 5.0


def batch_norm_gap(evaluated: Sequence[float], batch_wise: Sequence[float], *, steps: int) -> Finding:
    """Compare the loss with running statistics to that with the batch's own, on the same clean batches.

    Args:
        evaluated: Loss of each batch with the running statistics.
        batch_wise: Loss of each with its own statistics; dropout off in both.
        steps: Training steps before; below 100 the running statistics may still be on their way.

    >>> batch_norm_gap([0.5, 0.6, 0.55], [0.5, 0.62, 0.5], steps=100).status
    'PASS'
    >>> batch_norm_gap([9.1, 9.0, 9.2, 9.1], [0.5, 0.6, 0.5, 0.5], steps=100).causes
    ('batch-norm-statistics',)
    """
    if len(evaluated) < 2:
        return Finding(CHECK, "SKIP", "Fewer than two batches were seen.")
    if not all(map(isfinite, [*evaluated, *batch_wise])):
        return Finding(CHECK, "SKIP", "The loss is not finite.")
    differences = [e - b for e, b in zip(evaluated, batch_wise, strict=True)]
    deviation = max(stdev(differences), 1e-9)
    z = mean(differences) / deviation * len(differences) ** 0.5
    ratio = mean(evaluated) / max(mean(batch_wise), 1e-12)
    evidence = {"evaluated": mean(evaluated), "batch_wise": mean(batch_wise), "z": z, "steps": steps}
    said = f"The loss is {mean(evaluated):.3g} with running statistics"
    said += f", {mean(batch_wise):.3g} with the batch's own"
    # far below any meaning a ratio says nothing: 3e-4 against 1e-4
    if ratio > FACTOR and z > Z_LIMIT and mean(differences) > 0.2:
        if steps < 100:
            few = f"{said}, after {steps} steps only."
            return Finding(CHECK, "INFO", few, evidence, ("batch-norm-statistics",))
        return Finding(CHECK, "WARN", f"{said}; expected alike.", evidence, ("batch-norm-statistics",))
    return Finding(CHECK, "PASS", f"{said}.", evidence)
