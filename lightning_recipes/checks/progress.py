"""Does the loss fall over the first steps?"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import mean, stdev

from .finding import Finding

CHECK = "first steps"


def progress(losses: Sequence[float], *, broken: Sequence[str] = ()) -> Finding:
    """Judge the training loss over the first steps, each on another batch.

    Args:
        losses: Of the steps, in order.
        broken: Names of parameters and buffers that are no longer finite.

    Source: lecture, step 3: the loss drops clearly within about 100 iterations.

    >>> progress([2.3 - 0.01 * t for t in range(60)]).status
    'PASS'
    >>> progress([2.3 + 0.5 * t for t in range(60)]).status
    'WARN'
    """
    bad = [step for step, loss in enumerate(losses) if not isfinite(loss)]
    if bad or broken:
        where = f"at step {bad[0]}" if bad else f"in {', '.join(broken[:3])}"
        found = {"step": bad[0] if bad else None, "broken": list(broken[:10])}
        causes: tuple[str, ...] = (
            "non-finite-input",
            "learning-rate-too-high",
            "exploding-gradients",
            "mixed-precision-overflow",
        )
        if bad and bad[0] > 0 and losses[bad[0] - 1] > 3 * abs(losses[0]):
            causes = ("learning-rate-too-high", "exploding-gradients", "non-finite-input")
        what = "The loss is" if bad else "The weights are"
        return Finding(CHECK, "FAIL", f"{what} not finite any more {where}.", found, causes)
    if len(losses) < 20:
        return Finding(CHECK, "SKIP", f"{len(losses)} steps are too few to tell.")
    part = max(len(losses) // 5, 4)
    early, late = losses[:part], losses[-part:]
    noise = (stdev(early) ** 2 / part + stdev(late) ** 2 / part) ** 0.5
    z = (mean(early) - mean(late)) / max(noise, 1e-12)
    evidence = {"first": mean(early), "last": mean(late), "z": z, "steps": len(losses)}
    said = f"The loss goes from {mean(early):.4g} to {mean(late):.4g} in {len(losses)} steps"
    causes = ("learning-rate-too-high", "loss-sign-flipped", "exploding-gradients")
    if mean(late) > 1.5 * abs(mean(early)) and z < -5:
        return Finding(CHECK, "WARN", f"{said}; expected to fall.", evidence, causes)
    if z < 2:
        causes = ("learning-rate-too-low", "learning-rate-too-high", "labels-misaligned", "input-ignored")
        return Finding(CHECK, "INFO", f"{said}: it does not fall.", evidence, causes)
    return Finding(CHECK, "PASS", f"{said}.", evidence)
