"""Learning-rate schedules: pure functions of the fraction of the run, and one scheduler that follows them."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .utils.errors import UserError, did_you_mean

Shape = Literal["constant", "linear", "cosine", "one_cycle"]


def constant(t: float) -> float:
    """Return 1 at every fraction `t` of the run."""
    return 1.0


def linear(t: float) -> float:
    """Return 1 - t: from 1 at the start to 0 at the end.

    >>> linear(0.25)
    0.75
    """
    return 1 - t


def cosine(t: float) -> float:
    """Return (1 + cos πt)/2: from 1 at the start to 0 at the end.

    Source: Loshchilov and Hutter, "SGDR", 2017.

    >>> cosine(0.0), round(cosine(0.5), 12), cosine(1.0)
    (1.0, 0.5, 0.0)
    """
    return (1 + cos(pi * t)) / 2


def one_cycle(t: float) -> float:
    """Return the one-cycle factor: a cosine up from 1/25 over the first 30 %, a cosine down to 4e-6.

    Source: Smith and Topin, "Super-Convergence", 2018; constants as in `torch.optim.lr_scheduler.OneCycleLR`.

    >>> round(one_cycle(0.0), 3), one_cycle(0.3), round(one_cycle(1.0), 9)
    (0.04, 1.0, 4e-06)
    """
    start, peak, end = 1 / 25, 0.3, 1e-4 / 25
    if t <= peak:
        return 1 - (1 - start) * cosine(t / peak)
    return end + (1 - end) * cosine((t - peak) / (1 - peak))


def triangle(t: float) -> float:
    """Return |1 - 2t|: from 1 down to 0 in the middle, and up again.

    Source: Garipov et al., "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", 2018.

    >>> triangle(0.0), triangle(0.5), triangle(1.0)
    (1.0, 0.0, 1.0)
    """
    return abs(1 - 2 * t)


def cycle_lengths(total_steps: int, cycles: int) -> list[int]:
    """Cut a run into cycles of ⌈T/M⌉ steps; where M does not divide T, the last ones are a step shorter.

    Args:
        total_steps: T, at least M.
        cycles: M, at least 1.

    >>> cycle_lengths(10, 4)
    [3, 3, 2, 2]
    """
    length, longer = divmod(total_steps, cycles)
    return [length + (number < longer) for number in range(cycles)]


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


class Schedule(LambdaLR):
    """Scale each group's learning rate by a shape over the whole run, after a linear warm-up from 0.

    Step it once an optimizer step. The base rates are those of the optimizer's groups.

    Args:
        optimizer: Whose groups are scaled.
        total_steps: Optimizer steps in the run, at least 1.
        shape: The curve after the warm-up. `one_cycle` brings its own rise and takes no `warmup`.
        warmup: Length of the warm-up as a fraction of the run, in [0, 1).

    Raises:
        UserError: An unknown shape, or a `total_steps` or `warmup` out of its bounds.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, *, shape: Shape = "one_cycle", warmup: float = 0.0
    ) -> None:
        if shape not in SHAPES:
            listed = ", ".join(get_args(Shape))
            raise UserError(f"`shape` must be one of {listed}, got {shape!r}.{did_you_mean(shape, SHAPES)}")
        if total_steps < 1:
            raise UserError(
                f"`total_steps` must be at least 1, got {total_steps}. Train for an epoch or more."
            )
        if not 0 <= warmup < 1:
            raise UserError(f"`warmup` must be a fraction of the run in [0, 1), got {warmup}.")
        if warmup and shape == "one_cycle":
            raise UserError(
                f"`one_cycle` warms up by itself, got `warmup={warmup}`. Drop it, or take `cosine`."
            )
        curve = SHAPES[shape]
        warm = round(warmup * total_steps)
        after = max(total_steps - 1 - warm, 1)  # the last step of the run stands at t = 1

        def factor(step: int) -> float:
            if step < warm:
                return step / warm
            return curve(min((step - warm) / after, 1.0))

        super().__init__(optimizer, factor)
