"""Numbers by step, which thin out evenly as a run gets longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import torch


class StepHistory:
    """Rows of named numbers, one a measured step; from `at_most` rows on every second one is let go.

    Args:
        every: Steps between two measurements.
        first: How many of the first steps are kept in any case.
        at_most: Rows at most.

    >>> history = StepHistory(10, at_most=3)
    >>> for step in range(10, 60, 10):
    ...     history.add(step, {"a": step / 10})
    >>> history.steps, history.column("a")
    ([20, 40], [2.0, 4.0])
    """

    def __init__(self, every: int, *, first: int = 0, at_most: int = 1000) -> None:
        self.every, self.first, self.at_most = every, first, at_most
        self._stride = 1
        self._rows: dict[int, dict[str, float]] = {}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add to the row of a step, which may be there already: another optimizer may have come to it.

        NaN is left out.
        """
        if not self._is_kept(step):
            return
        known = {name: value for name, value in values.items() if value == value}
        self._rows.setdefault(step, {}).update(known)
        while len(self._rows) > self.at_most + self.first:
            self._stride *= 2
            self._rows = {step: row for step, row in self._rows.items() if self._is_kept(step)}

    def _is_kept(self, step: int) -> bool:
        return step <= self.first or step // self.every % self._stride == 0

    @property
    def steps(self) -> list[int]:
        """The steps of the rows, rising."""
        return sorted(self._rows)

    def column(self, name: str) -> list[float]:
        """Return a number of each row; NaN where it was not measured."""
        return [self._rows[step].get(name, nan) for step in self.steps]

    def table(self, names: Sequence[str]) -> list[list[float]]:
        """Return the columns side by side: a list a row."""
        return [[self._rows[step].get(name, nan) for name in names] for step in self.steps]

    def names(self) -> list[str]:
        """Return the names that some row holds, in the order in which they first came."""
        return list(dict.fromkeys(name for step in self.steps for name in self._rows[step]))

    def state_dict(self) -> dict[str, Any]:
        """Return the rows as plain data and one tensor."""
        names = self.names()
        values = torch.tensor(self.table(names), dtype=torch.float64).reshape(len(self._rows), len(names))
        return {"stride": self._stride, "steps": self.steps, "names": names, "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the rows of a `state_dict`."""
        self._stride = state["stride"]
        self._rows = {
            step: {name: value for name, value in zip(state["names"], row, strict=True) if value == value}
            for step, row in zip(state["steps"], state["values"].tolist(), strict=True)
        }
