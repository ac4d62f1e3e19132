"""What a module's own error says about its cause."""

from __future__ import annotations

import re

from ..checks import Finding

PATTERNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"Target -?\d+ is out of bounds|label.*out of|index.*out of (range|bounds)|device-side assert",
        ("wrong-number-of-classes",),
    ),
    (r"does not require grad", ("loss-detached", "detached-backbone", "frozen-backbone")),
    (
        r"mat1 and mat2|size mismatch|shape|same size|expected input.*channels|dimension",
        ("shape-mismatch", "wrong-number-of-classes"),
    ),
    (r"all elements of input should be between 0 and 1", ("sigmoid-before-loss", "wrong-loss")),
    (r"second time|inplace operation", ("wrong-loss",)),
)


def error_finding(error: Exception) -> Finding:
    """Return a FAIL for a step that raises, with the likely causes.

    Args:
        error: What the module's own code raised; its text tells the causes, by `PATTERNS`.

    >>> error_finding(IndexError("Target 9 is out of bounds.")).causes
    ('wrong-number-of-classes',)
    """
    said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    causes: tuple[str, ...] = ()
    for pattern, slugs in PATTERNS:
        if re.search(pattern, str(error)):
            causes = slugs
            break
    message = f"The training step raises {said.rstrip('.')}."
    return Finding("first step", "FAIL", message, {"error": said}, causes)
