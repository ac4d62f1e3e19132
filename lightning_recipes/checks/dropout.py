"""Does dropout leave enough to learn from?"""

from __future__ import annotations

from collections.abc import Mapping

from .finding import Finding

CHECK = "dropout"
HIGHEST = 0.9  # usual is at most 0.5 (AlexNet, VGG); from 0.9 on a tenth or less is left


def dropout(rates: Mapping[str, float]) -> Finding:
    """Judge the probabilities to drop.

    Args:
        rates: Probability to drop by layer: torch's `p`, not the share that is kept.

    >>> dropout({"classifier.drop": 0.95}).causes
    ('dropout-too-strong',)
    >>> dropout({"classifier.drop": 0.5}).status
    'PASS'
    """
    strong = {name: float(rate) for name, rate in rates.items() if rate >= HIGHEST}
    if not rates:
        return Finding(CHECK, "PASS", "There is no dropout.")
    if not strong:
        return Finding(
            CHECK, "PASS", f"Dropout is at most {max(rates.values()):.2g}.", {"most": max(rates.values())}
        )
    name = max(strong, key=strong.__getitem__)
    message = f"`{name}` drops {strong[name]:.0%} of its inputs; 10 % to 50 % is usual."
    return Finding(CHECK, "WARN", message, {"rates": strong}, ("dropout-too-strong",))
