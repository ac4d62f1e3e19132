"""How far images are from those that a backbone was trained on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..utils.modes import evaluating


def hellinger(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    r"""Return the squared Hellinger distance of normal distributions, in [0, 1]: 0 alike, 1 without overlap.

    :math:`1 - \sqrt{2 \sigma \tau / (\sigma^2 + \tau^2)} \exp(-(\mu - \nu)^2 / 4 (\sigma^2 + \tau^2))`.

    Args:
        mean: μ, any shape.
        variance: σ², above 0, same shape.
        other_mean: ν, same shape.
        other_variance: τ², above 0, same shape.

    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> hellinger(zero, one, zero, one), hellinger(zero, one, zero + 100, one)
    (tensor([0.]), tensor([1.]))
    """
    total = variance + other_variance
    overlap = (2 * (variance * other_variance).sqrt() / total).sqrt()
    return 1 - overlap * (-((mean - other_mean) ** 2) / (4 * total)).exp()


@torch.no_grad()
def domain_distance(
    backbone: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device | str = "cpu"
) -> float | None:
    """Return how differently the channels of a pretrained network act on these images, in [0, 1].

    Each BatchNorm knows the mean and variance of its input over the images of pretraining. How far these are
    from the mean and variance over the images here, by `hellinger`, is averaged over the channels of a layer,
    and then over layers. The network evaluates, so that a layer is given what it would be in use.

    Args:
        backbone: With the weights of its pretraining.
        batches: Of images (B, C, H, W) and targets, preprocessed as in pretraining; some hundred images.
        device: Where the backbone lies.

    Returns:
        The distance, or None for a network without running statistics.
    """
    norms = [
        part for part in backbone.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]
    sums = {norm: _Sums() for norm in norms}
    if not norms:
        return None
    with ExitStack() as hooks, evaluating(backbone):
        for norm in norms:
            handle = norm.register_forward_pre_hook(lambda part, args: sums[part].add(args[0]))
            hooks.callback(handle.remove)
        for images, _ in batches:
            backbone(images.to(device))
    apart = []
    for norm, seen in sums.items():
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        if seen.count == 0:
            continue
        here, spread = seen.moments()
        floor = norm.eps  # a channel that is always 0, here and there, is no difference
        apart.append(
            hellinger(here, spread + floor, mean.double().cpu(), variance.double().cpu() + floor).mean()
        )
    return float(torch.stack(apart).mean()) if apart else None


class _Sums:
    """Sums over all positions of what a layer is given, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Any = 0.0
        self.squares: Any = 0.0

    def add(self, inputs: Tensor) -> None:
        values = inputs.double().transpose(0, 1).flatten(1)  # (C, positions)
        self.count += values.shape[1]
        self.total = self.total + values.sum(1).cpu()
        self.squares = self.squares + values.square().sum(1).cpu()

    def moments(self) -> tuple[Tensor, Tensor]:
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean**2).clamp_min(0)
