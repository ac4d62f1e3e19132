"""Learning-rate schedules: pure functions of time, and one scheduler that follows them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from math import cos, floor, pi, sqrt
from typing import Any, Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .utils.errors import UserError, check_choice
from .utils.run_length import RunLength, Unit

Shape = Literal[
    "constant",
    "linear",
    "cosine",
    "one_cycle",
    "cyclic_cosine",
    "step",
    "multi_step",
    "exponential",
    "inverse_sqrt",
    "inverse_time",
]


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


def cyclic_cosine(t: float, cycles: int) -> float:
    """Return a cosine from 1 to 0 in each of equal cycles over the run; the next begins at 1 again.

    Source: Loshchilov and Hutter, "SGDR", 2017; Huang et al., "Snapshot Ensembles", 2017.

    >>> [round(cyclic_cosine(t, 2), 12) for t in (0.0, 0.25, 0.5, 1.0)]
    [1.0, 0.5, 1.0, 0.0]
    """
    if t >= 1:
        return 0.0
    return cosine(round(t * cycles, 9) % 1)  # 1.9999999999 is 2, the start of a cycle


def step_decay(t: float, every: float, *, gamma: float = 0.1) -> float:
    """Return γ^⌊t/s⌋: a drop every s epochs.

    Args:
        t: Epochs, or any other unit, from the start of the run.
        every: s, in the same unit.
        gamma: γ, the factor of a drop.

    >>> step_decay(59, 30, gamma=0.5), step_decay(60, 30, gamma=0.5)
    (0.5, 0.25)
    """
    return float(gamma ** floor(round(t / every, 9)))  # 1.9999999999 is 2


def multi_step(t: float, milestones: Sequence[float], *, gamma: float = 0.1) -> float:
    """Return γ to the number of milestones that are reached.

    Args:
        t: Epochs, or any other unit, from the start of the run.
        milestones: In the same unit, rising.
        gamma: γ, the factor of a drop.

    Source: He et al., "Deep Residual Learning", 2016: ×0.1, thrice; after 30, 60 and 90 epochs in CS231n.

    >>> [multi_step(t, (30, 60), gamma=0.5) for t in (29, 30, 90)]
    [1.0, 0.5, 0.25]
    """
    return float(gamma ** bisect_right(milestones, round(t, 9)))


def exponential(t: float, gamma: float) -> float:
    """Return γ^t.

    Args:
        t: Epochs, or any other unit.
        gamma: γ, the factor of each of them.

    Source: Sandler et al., "MobileNetV2", 2018, with γ = 0.98 an epoch.

    >>> exponential(2, 0.5)
    0.25
    """
    return float(gamma**t)


def inverse_sqrt(t: float) -> float:
    """Return 1/√t, and 1 before t = 1.

    Source: Vaswani et al., "Attention Is All You Need", 2017.

    >>> inverse_sqrt(0), inverse_sqrt(4)
    (1.0, 0.5)
    """
    return 1 / sqrt(max(t, 1))


def inverse_time(t: float) -> float:
    """Return 1/t, and 1 before t = 1.

    Source: Robbins and Monro, "A Stochastic Approximation Method", 1951.

    >>> inverse_time(0), inverse_time(4)
    (1.0, 0.25)
    """
    return 1 / max(t, 1)


SHAPES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "cyclic_cosine": cyclic_cosine,
    "step": step_decay,
    "multi_step": multi_step,
    "exponential": exponential,
    "inverse_sqrt": inverse_sqrt,
    "inverse_time": inverse_time,
}


class Schedule(LambdaLR):
    """Scale each group's learning rate by a shape over the run, after a linear warm-up from 0.

    Step it once an optimizer step. The base rates are those of the optimizer's groups. In a warm-up of w
    steps, step i has i/w of the rate with which the shape begins, and step w has all of it. `linear`,
    `cosine`, `cyclic_cosine` and `one_cycle` run over what the warm-up leaves; `exponential`, `inverse_sqrt`
    and `inverse_time` count from its end, `step` and `multi_step` from the start of the run.

    Args:
        optimizer: Whose groups are scaled.
        total_steps: Optimizer steps in the run, at least 1. Past them the rate stays.
        shape: The curve after the warm-up.
        warmup: Length of the warm-up, shorter than the run. (`one_cycle` then rises on by itself.)
        warmup_unit: What `warmup` counts: a fraction of the run, steps or epochs.
        unit: What `every`, `milestones` and the decays count: epochs, steps, or fractions of the run.
        every: Of `step`: from one drop to the next.
        milestones: Of `multi_step`: where the drops are, from the start of the run, rising.
        gamma: The factor of a drop (by default 0.1); of `exponential` that of each unit (by default 0.98 an
            epoch). In (0, 1].
        cycles: Of `cyclic_cosine`: how many.
        epochs: How many the run has, for what is given in epochs. `ImageClassifier` knows it.

    Raises:
        UserError: An argument out of its bounds, a warm-up as long as the run, or epochs that are not known.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017, for the warm-up.

    >>> import torch
    >>> sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> schedule = Schedule(sgd, 100, shape="step", every=3, epochs=10, warmup=2, warmup_unit="epochs")
    >>> [schedule.factor(step) for step in (0, 10, 20, 29, 30)]
    [0.0, 0.5, 1.0, 1.0, 0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        shape: Shape = "one_cycle",
        warmup: float = 0.0,
        warmup_unit: Unit = "fraction",
        unit: Unit = "epochs",
        every: float = 30,
        milestones: Sequence[float] = (30, 60, 90),
        gamma: float | None = None,
        cycles: int = 5,
        epochs: float | None = None,
    ) -> None:
        check_choice("shape", shape, SHAPES)
        check_choice("warmup_unit", warmup_unit, get_args(Unit))
        check_choice("unit", unit, get_args(Unit))
        run = RunLength(total_steps, epochs=epochs)
        warm = run.warmup_steps(warmup, warmup_unit)
        left = total_steps - warm
        settings: dict[str, Any] = {}
        begin, length = warm, float(max(left - 1, 1))  # the last step of the run stands at t = 1
        if shape == "cyclic_cosine":
            if not 1 <= cycles <= left:
                raise UserError(f"`cycles` must lie in 1..{left}, for each needs a step, got {cycles}.")
            settings, length = {"cycles": cycles}, left
        elif shape in ("step", "multi_step"):
            name, drops = ("every", [every]) if shape == "step" else ("milestones", list(milestones))
            run.check_drops(name, drops, unit, after=warm)
            settings = {name: every if shape == "step" else drops, "gamma": _gamma(gamma, 0.1)}
            begin, length = 0, run.steps_in(unit)
        elif shape == "exponential":
            if gamma is None and unit != "epochs":
                raise UserError(f"`exponential` with `unit: {unit}` needs `gamma`, the factor of each unit.")
            settings, length = {"gamma": _gamma(gamma, 0.98)}, run.steps_in(unit)
        elif shape in ("inverse_sqrt", "inverse_time"):
            if unit == "fraction":
                raise UserError(
                    f"`{shape}` counts from 1 on, got `unit: fraction`. Take `epochs` or `steps`."
                )
            length = run.steps_in(unit)
        curve = partial(SHAPES[shape], **settings)
        start = curve((warm - begin) / length)

        def factor(step: int) -> float:
            if step < warm:
                return start * (step / warm)
            return curve((min(step, total_steps - 1) - begin) / length)

        super().__init__(optimizer, factor)

    def factor(self, step: int) -> float:
        """Return what the base rates are multiplied by at an optimizer step, counted from 0."""
        return float(self.lr_lambdas[0](step))


def _gamma(given: float | None, default: float) -> float:
    gamma = default if given is None else given
    if not 0 < gamma <= 1:
        raise UserError(f"`gamma` must lie in (0, 1], got {gamma}. Usual is {default}.")
    return gamma
