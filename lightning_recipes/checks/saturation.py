"""Sigmoids and tanhs at their bounds, or without a signal left in them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from .finding import Finding

CHECK = "saturation"
# Fraction of values within 1/40 of the range from a bound, median over the layers. Six tanh layers of width
# 4096: N(0, 0.05²) .51, Xavier .00 to .07. More than 40 % is most of what still carries the sign only.
SATURATED = 0.4
# Last over first standard deviation between samples. The same layers: N(0, 0.01²) .10, Xavier .47; torch's
# default for linear layers shrinks by 0.58 a layer with tanh and by 0.14 with the sigmoid.
COLLAPSED = 0.12
FEWEST = 3  # layers, to speak of depth


def saturation(saturated: Mapping[str, float], spread: Mapping[str, float]) -> Finding:
    """Judge the sigmoid and tanh layers of a network, first to last.

    At the bounds the slope is next to nothing, and so is the gradient; a sigmoid's slope is 1/4 at best, so
    that in a deep stack of them the samples become alike.

    Args:
        saturated: Layer to the fraction of its values that lie at a bound; hidden layers, no gates.
        spread: The same layers to the standard deviation of a unit between samples.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010.

    >>> saturation({"a": 0.9, "b": 0.8}, {"a": 0.9, "b": 0.9}).causes
    ('saturating-activation', 'initialization-too-large', 'input-scale')
    """
    if not saturated:
        return Finding(CHECK, "SKIP", "There is no hidden sigmoid or tanh.")
    spreads = [spread[name] for name in saturated]
    typical = median(saturated.values())
    ratio = spreads[-1] / spreads[0] if spreads[0] > 0 else 1.0
    evidence = {
        "layers": len(saturated),
        "saturated": dict(saturated),
        "spread": dict(spread),
        "last_to_first": ratio,
    }
    if typical > SATURATED:
        return Finding(
            CHECK,
            "WARN",
            f"{typical:.0%} of the values of the median of {len(saturated)} sigmoid or tanh layers lie at "
            f"the bounds; expected below {SATURATED:.0%}.",
            evidence,
            ("saturating-activation", "initialization-too-large", "input-scale"),
        )
    if len(spreads) >= FEWEST and ratio < COLLAPSED:
        return Finding(
            CHECK,
            "WARN",
            f"The standard deviation between samples falls from {spreads[0]:.3g} to {spreads[-1]:.3g} "
            f"over {len(spreads)} sigmoid or tanh layers; expected to keep {COLLAPSED:.0%}.",
            evidence,
            ("saturating-activation", "vanishing-gradients", "initialization-too-small"),
        )
    said = f"{typical:.0%} of the values lie at the bounds (median of the layers); the standard deviation "
    said += f"between samples is {ratio:.2g} times the first layer's in the last."
    return Finding(CHECK, "PASS", said, evidence)
