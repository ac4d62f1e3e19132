"""One word on the activations of one layer, for a table."""

from __future__ import annotations

SATURATED, DEAD = 0.4, 0.5  # as in `saturation` and `dead_units`
# A layer's standard deviation over the first one's. The lecture's sixth layer: ReLU with Xavier .17, tanh
# with 0.01·N .10, Kaiming .98. Of 21 untrained architectures of timm and torchvision, those with
# normalisation lie within .32 to 3.0 (the last layer of mobilenet_v3_small at .09); without it AlexNet falls
# to .03, VGG to .17, and SqueezeNet rises to 4.0.
SHRUNK, GROWN = 0.2, 10.0


def layer_word(
    *, std: float, first_std: float, dead: float | None = None, saturated: float | None = None
) -> str:
    """Return what stands out in a layer's activations; `ok` where nothing does.

    Args:
        std: Standard deviation of its activations.
        first_std: That of the first layer.
        dead: Fraction of units that never moved, where enough samples were seen, and where units can die.
        saturated: Fraction of values at the bounds, where there are bounds.

    >>> layer_word(std=0.10, first_std=0.58), layer_word(std=0.8, first_std=0.8, saturated=0.6)
    ('shrinks', 'saturated')
    """
    if std != std or std == float("inf"):
        return "not finite"
    if std == 0:
        return "constant"
    if dead is not None and dead > DEAD:
        return "dead"
    if saturated is not None and saturated > SATURATED:
        return "saturated"
    ratio = std / first_std if first_std > 0 else 1.0
    if ratio < SHRUNK:
        return "shrinks"
    return "grows" if ratio > GROWN else "ok"
