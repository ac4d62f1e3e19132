"""An optimizer whose steps are watched, and how its numbers come to the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

Lists: TypeAlias = Mapping[str, Sequence[Tensor]]  # scalars on the device, by what they measure


@dataclass
class Watched:
    """An optimizer whose steps are counted.

    Args:
        optimizer: Its steps are counted, and those of others apart.
        number: Of the optimizer among those of the run, from 0.
        steps: Those that it has taken. A fused optimizer leaves out a step without saying so to the host;
            such a step is taken off when the numbers of a measured one come over.
        left_out: How many those are, on the device; None where there was none to ask.
    """

    optimizer: Optimizer
    number: int
    steps: int = 0
    left_out: Tensor | None = None

    def parameters(self) -> list[Tensor]:
        """Return the parameters that have a gradient; a group may have come later."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]

    def rate(self) -> float:
        """Return the largest learning rate, where it is known to the host; else NaN."""
        rates = [group["lr"] for group in self.optimizer.param_groups if "lr" in group]
        return max(
            (float(r) for r in rates if not isinstance(r, Tensor) or r.device.type == "cpu"), default=0.0
        )


def transferred(scalars: Sequence[Tensor]) -> list[float]:
    """Return the values of scalars in one transfer to the host."""
    if not scalars:
        return []
    device = scalars[0].device
    values: list[float] = torch.stack([s.detach().to(device, torch.float32) for s in scalars]).tolist()
    return values


def relative(part: float, whole: float) -> float:
    """Return part / whole; infinity where either is not finite, or `whole` is zero.

    >>> relative(1.0, 2.0), relative(float("nan"), 1.0)
    (0.5, inf)
    """
    return part / whole if isfinite(part) and isfinite(whole) and whole else inf
