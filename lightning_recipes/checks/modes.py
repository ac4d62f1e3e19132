"""Layers that train where they should evaluate, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence

from .finding import Finding

CHECK_TRAINING = "modes in training"
CHECK_VALIDATION = "modes in validation"


def modes(evaluating: Sequence[str], total: int, *, stage: str = "training") -> Finding:
    """Judge the modes of layers that act differently in training: norms with running statistics, dropout.

    Args:
        evaluating: Names of those in the wrong mode for the stage, without layers whose weights are all
            frozen.
        total: How many such layers there are.
        stage: `training` or `validation`.

    >>> modes([], 3).status, modes(["net.1", "net.4"], 2).causes
    ('PASS', ('eval-mode-in-training',))
    """
    check = CHECK_TRAINING if stage == "training" else CHECK_VALIDATION
    wrong = "evaluation" if stage == "training" else "training"
    cause = "eval-mode-in-training" if stage == "training" else "train-mode-in-validation"
    evidence = {"wrong": list(evaluating[:10]), "number": len(evaluating), "of": total}
    if not total:
        return Finding(check, "PASS", "No layer acts differently in training and evaluation.", evidence)
    if not evaluating:
        return Finding(check, "PASS", f"All {total} norms and dropouts are in their mode.", evidence)
    listed = ", ".join(evaluating[:3]) + (", ..." if len(evaluating) > 3 else "")
    said = f"{len(evaluating)} of {total} norms and dropouts are in {wrong} mode during {stage}: {listed}"
    said += "; expected none."
    return Finding(check, "FAIL" if len(evaluating) == total else "WARN", said, evidence, (cause,))
