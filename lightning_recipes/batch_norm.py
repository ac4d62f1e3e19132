"""BatchNorm layers and their running statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from .utils.modes import evaluating


def tracking_norms(module: nn.Module) -> list[_NormBase]:
    """Return the normalisation layers in training mode whose running statistics move."""
    return [
        part
        for part in module.modules()
        if isinstance(part, _NormBase) and part.training and part.running_mean is not None
    ]


@contextmanager
def refreshing(module: nn.Module, norms: Sequence[_NormBase]) -> Iterator[None]:
    """Let the forward passes of the block measure the running statistics of `norms` anew.

    Each becomes the plain mean over the block's batches. All other layers evaluate, so that what is measured
    is what they will see; modes and momenta are put back, whatever happens in the block.

    Args:
        module: Of which `norms` are parts.
        norms: Layers that keep running statistics.

    >>> import torch
    >>> norm = nn.BatchNorm1d(1)
    >>> with refreshing(norm, [norm]):
    ...     _ = norm(torch.tensor([[0.0], [2.0]])), norm(torch.tensor([[4.0], [6.0]]))
    >>> norm.running_mean, norm.momentum
    (tensor([3.]), 0.1)
    """
    momenta = [norm.momentum for norm in norms]
    with evaluating(module):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # torch's word for a plain mean
                norm.train()
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
