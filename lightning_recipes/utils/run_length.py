"""How long a run is, and what is given as a part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from math import inf
from typing import Literal

from lightning.pytorch.utilities import rank_zero_warn

from .errors import UserError

Unit = Literal["fraction", "steps", "epochs"]
_EPOCHS: ContextVar[float | None] = ContextVar("epochs", default=None)


@contextmanager
def known_epochs(epochs: float | None) -> Iterator[None]:
    """Tell each `RunLength` that is made in the block how many epochs the run has.

    Any scheduler can be built from an optimizer and a number of steps. Torch's keep that number in their
    state, and so in checkpoints: it must be a plain one, and the epochs go another way.
    """
    token = _EPOCHS.set(epochs)
    try:
        yield
    finally:
        _EPOCHS.reset(token)


class RunLength:
    """The optimizer steps of a run, and its epochs where they are known.

    Args:
        steps: At least 1.
        epochs: Above 0, not always whole; None takes what `known_epochs` says, if anything.

    Raises:
        UserError: One of them is out of its bounds.

    >>> run = RunLength(1000, epochs=10)
    >>> run.steps_in("epochs"), run.steps_in("steps"), run.steps_in("fraction")
    (100.0, 1.0, 1000.0)
    """

    def __init__(self, steps: int, *, epochs: float | None = None) -> None:
        if not 1 <= steps < inf:
            raise UserError(f"`total_steps` must be at least 1, got {steps}. Train for an epoch or more.")
        if epochs is not None and not 0 < epochs < inf:
            raise UserError(f"`epochs` must be above 0, got {epochs}. To count in steps alone, leave it out.")
        self.steps = steps
        self.epochs = _EPOCHS.get() if epochs is None else epochs

    def steps_in(self, unit: Unit) -> float:
        """Return how many steps there are in a unit.

        Raises:
            UserError: The unit is an epoch, and how many the run has is not known.
        """
        if unit != "epochs":
            return 1.0 if unit == "steps" else float(self.steps)
        if self.epochs is None:
            raise UserError(
                "A length is given in epochs, but how many the run has is not known. Set the schedule's "
                "`epochs`, or count in `steps` or as a `fraction` of the run."
            )
        return self.steps / self.epochs

    def warmup_steps(self, warmup: float, unit: Unit) -> int:
        """Return how many steps a warm-up takes, rounded; at least one of the run is left.

        Raises:
            UserError: It is negative, or as long as the run.

        >>> RunLength(1000, epochs=10).warmup_steps(2, "epochs")
        200
        """
        if not warmup >= 0:
            raise UserError(f"`warmup` must be at least 0, got {warmup}. For none, set it to 0.")
        if warmup == 0:
            return 0
        if unit == "fraction" and warmup >= 1:
            raise UserError(
                f"`warmup` must be a fraction of the run in [0, 1), got {warmup}. For a number of epochs or "
                "steps, set `warmup_unit`."
            )
        length = warmup * self.steps_in(unit)
        if length >= self.steps:
            whole = self.epochs if unit == "epochs" else self.steps
            raise UserError(
                f"`warmup` must be shorter than the run, {whole:g} {unit}, got {warmup:g}. "
                "Shorten it, or train longer."
            )
        return min(round(length), self.steps - 1)

    def check_drops(self, name: str, drops: Sequence[float], unit: Unit, *, after: int) -> None:
        """Warn where the rate will never drop.

        Args:
            name: How the user calls them: `every` for the distance from one to the next, or `milestones`.
            drops: The first ones, in units from the start of the run.
            unit: Of the drops.
            after: Steps of the warm-up.

        Raises:
            UserError: They do not rise from above 0, lie out of the run, or begin within the warm-up.
        """
        got, rise = (drops[0], "") if name == "every" else (list(drops), " and rise")
        if not drops or not all(before < drop for before, drop in pairwise([0, *drops])):
            raise UserError(
                f"`{name}` must be above 0{rise}, got {got}. For a rate without drops take `constant`."
            )
        if unit == "fraction" and drops[-1] >= 1:
            raise UserError(
                f"`{name}` must lie in (0, 1) with `unit: fraction`, got {got}. For epochs or steps, set "
                "`unit`."
            )
        first = round(drops[0] * self.steps_in(unit), 6)  # 20.9999999999 steps are 21
        if after and first <= after:
            raise UserError(
                f"`{name}` must begin after the warm-up of {after} steps, got {got}, the first of which lies "
                f"at {first:g} steps. Shorten the warm-up."
            )
        if first >= self.steps:
            rank_zero_warn(
                f"The first drop of the rate, at {drops[0]:g} {unit}, lies past the end of the run: the rate "
                f"stays. Set `{name}`, or give it as a fraction of the run with `unit: fraction`."
            )
