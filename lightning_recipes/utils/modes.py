"""Training and evaluation modes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Have all layers evaluate within the block, and give each its own mode back.

    >>> layer = nn.Sequential(nn.Dropout().eval(), nn.Dropout())
    >>> with evaluating(layer):
    ...     [part.training for part in layer]
    [False, False]
    >>> [part.training for part in layer]
    [False, True]
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training
