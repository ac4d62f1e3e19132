"""Does the learning rate last for the whole run?"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .finding import Finding

CHECK = "schedule"


def schedule(rates: Sequence[float]) -> Finding:
    """Judge the learning rate of each step of the whole run.

    Args:
        rates: The rate at each step, simulated over the whole run; evenly subsampled when it is long. Of
            several groups the largest rate.

    >>> schedule([0.1 * 0.5**step for step in range(100)]).causes
    ('schedule-too-short',)
    >>> schedule([0.1] * 100).status
    'PASS'
    """
    values = torch.as_tensor(rates, dtype=torch.double)
    if len(values) < 10:
        return Finding(CHECK, "SKIP", f"{len(values)} steps are too few to judge a schedule: 10 are needed.")
    if not bool(values.isfinite().all()) or float(values.max()) <= 0:
        return Finding(CHECK, "SKIP", "The rates are not finite, or none is above 0.")
    total, peak = len(values), float(values.max())
    alive = int((values >= 1e-3 * peak).nonzero()[-1]) + 1  # steps until the rate is gone for good
    evidence = {"steps": total, "peak": peak, "last": float(values[-1]), "alive": alive / total}
    if alive < 0.3 * total:
        return Finding(
            CHECK,
            "WARN",
            f"The learning rate stays below a thousandth of its peak {peak:.3g} after {alive / total:.0%} of "
            "the run; expected to last.",
            evidence,
            ("schedule-too-short",),
        )
    rising = bool((values.diff() >= -1e-9 * peak).all())
    late = float(values[int(0.9 * (total - 1))])
    # A linear warm-up has 0.90 of its end at 90 % of its length, a cosine one 0.976.
    if rising and float(values[0]) < 0.1 * peak and late < 0.98 * float(values[-1]):
        return Finding(
            CHECK,
            "FAIL",
            f"The learning rate rises from {float(values[0]):.3g} until the last step ({peak:.3g}): the "
            "warm-up is as long as the run, or longer.",
            evidence,
            ("warmup-too-long",),
        )
    message = f"The learning rate stays above a thousandth of its peak for {alive / total:.0%} of the run."
    return Finding(CHECK, "PASS", message, evidence)
