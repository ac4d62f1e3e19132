"""Gradients that are never cleared, and steps that are never taken."""

from __future__ import annotations

from .finding import Finding

CHECK = "gradients of each step"


def stale_gradients(stale: int, windows: int, *, steps: int, batches: int) -> Finding:
    """Judge whether each step uses its own gradients only.

    Args:
        stale: Steps whose gradients were added to those of the step before.
        windows: Steps that were watched, but for the first.
        steps: Optimizer steps that were taken.
        batches: Batches that were given.

    >>> stale_gradients(0, 5, steps=6, batches=6).status
    'PASS'
    >>> stale_gradients(5, 5, steps=6, batches=6).causes
    ('missing-zero-grad',)
    """
    evidence = {"stale": stale, "windows": windows, "steps": steps, "batches": batches}
    if batches and not steps:
        said = f"No optimizer step was taken in {batches} batches; expected one or more."
        return Finding(CHECK, "FAIL", said, evidence, ("missing-step",))
    if not windows:
        return Finding(CHECK, "SKIP", "Too few steps were taken to tell.")
    if stale > windows / 2:
        said = f"In {stale} of {windows} steps the gradients still held those of the step before"
        said += "; expected in none."
        return Finding(CHECK, "FAIL", said, evidence, ("missing-zero-grad",))
    return Finding(CHECK, "PASS", "Each step begins with cleared gradients.", evidence)
