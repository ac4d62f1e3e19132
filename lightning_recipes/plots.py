"""Arrays to figures. Nothing here shows or saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, isfinite, nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"train": "#1f77b4", "val": "#d95f02", "test": "#4d9221"}
_FIRST = ("loss", "acc")  # panels in the order in which one reads them; the others follow by name


def learning_curves(rows: Sequence[Mapping[str, float]], *, best_step: float | None = None) -> Figure:
    """Draw each metric over the optimizer steps, training and validation in one panel.

    Args:
        rows: One mapping a moment, with `step` and metrics named `stage/metric`; what was not measured is
            absent.
        best_step: Where to draw a line, the step with the best validation.

    >>> figure = learning_curves([{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1.0}])
    >>> [axis.get_title() for axis in figure.axes]
    ['loss']
    """
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.ticker import MaxNLocator

    names = {name for row in rows for name in row if name not in ("step", "epoch")}
    metrics = sorted({name.rpartition("/")[2] for name in names})
    panels = [m for m in _FIRST if m in metrics] + [m for m in metrics if m not in _FIRST]
    columns = min(len(panels), 3) or 1
    lines = ceil(len(panels) / columns) or 1
    figure = Figure(figsize=(4.2 * columns, 3.2 * lines), layout="constrained")
    for number, metric in enumerate(panels, start=1):
        axis = figure.add_subplot(lines, columns, number)
        for name in sorted(name for name in names if name.rpartition("/")[2] == metric):
            stage = name.rpartition("/")[0] or metric
            points = [(row["step"], row[name]) for row in rows if name in row]
            axis.plot(
                [step for step, _ in points],
                [value if isfinite(value) else nan for _, value in points],
                label=stage,
                color=COLORS.get(stage),
                marker="o" if len(points) < 30 else None,
                markersize=3,
            )
        if best_step is not None:
            axis.axvline(best_step, color="0.6", linewidth=1, linestyle="--", label="best")
        axis.set_title(metric)
        axis.set_xlabel("optimizer step")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.grid(alpha=0.25)
        axis.legend(fontsize="small")
    return figure
