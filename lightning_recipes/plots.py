"""Arrays to figures. Nothing here shows or saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, inf, isfinite, log10, nan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


def learning_rate(
    rates: Mapping[str, Sequence[float]], *, positions: Sequence[float], steps_per_epoch: float | None = None
) -> Figure:
    """Draw the learning rate over the run, and beside it on a logarithmic scale, down to a 10 000th.

    Args:
        rates: Legend to rates, at least one of them above 0. Each (T,)
        positions: Where they hold, rising: epochs, or optimizer steps where there are no epochs. (T,)
        steps_per_epoch: Adds an axis of optimizer steps above that of epochs; None: there are steps alone.

    >>> figure = learning_rate({"linear": [0.1, 0.05, 0.0]}, positions=[0, 1, 2])
    >>> [axis.get_yscale() for axis in figure.axes]
    ['linear', 'log']
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    top = max(max(values) for values in rates.values())
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, scale in zip(figure.subplots(1, 2), ("linear", "log"), strict=True):
        for name, values in rates.items():
            shown = values if scale == "linear" else [value or nan for value in values]
            axis.plot(positions, shown, label=name, marker="o" if len(positions) < 30 else None)
        axis.set_yscale(scale)
        axis.set_ylim((-0.02 * top, 1.05 * top) if scale == "linear" else (top / 1e4, 1.6 * top))
        axis.margins(x=0.02)
        axis.set_xlabel("optimizer step" if steps_per_epoch is None else "epoch")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_ylabel("learning rate" if scale == "linear" else "learning rate, logarithmic")
        axis.grid(alpha=0.25)
        if steps_per_epoch is not None:
            above = axis.secondary_xaxis(
                "top", functions=(lambda e: e * steps_per_epoch, lambda s: s / steps_per_epoch)
            )
            above.set_xlabel("optimizer step")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def heatmap(
    values: Sequence[Sequence[float]],
    *,
    steps: Sequence[int],
    rows: Sequence[str],
    title: str,
    center: float | None = None,
) -> Figure:
    """Draw the logarithm of positive numbers by depth and optimizer step, the first layer at the top.

    Grey was not measured, black is not finite, and a zero has the colour of the smallest number.

    Args:
        values: One list a step, one number a row of the picture; NaN where it was not measured. (T, L)
        steps: Where the lists stand, rising. (T,)
        rows: Names of the rows. (L,)
        title: What the numbers are.
        center: What is white: smaller is blue and larger red, over three powers of ten either way. By default
            the colours span what there is.

    >>> figure = heatmap([[1e-3, 1e-2], [1e-4, 0.0]], steps=[10, 20], rows=["stem", "head"], title="ratio")
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['stem', 'head']
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    logs = np.array([[log10(v) if 0 < v < inf else (-inf if v == 0 else v) for v in line] for line in values])
    logs = logs.reshape(len(steps), len(rows)).T  # (L, T)
    finite = logs[np.isfinite(logs)]
    if center is not None:
        low, high = log10(center) - 3, log10(center) + 3
    elif finite.size:
        low, high = (float(bound) for bound in np.percentile(finite, (1, 99)))
    else:
        low, high = -1.0, 0.0
    high = max(high, low + 1)
    colors = colormaps["RdBu_r" if center is not None else "viridis"].with_extremes(bad="0.82")
    names = [name.removesuffix(".weight") for name in rows]
    height = min(max(2.6, 0.19 * len(rows) + 1.3), 11)
    figure = Figure(figsize=(8.4, height), layout="constrained")
    axis = figure.add_subplot()
    edges = _edges(steps)
    shown = np.clip(np.where(np.isposinf(logs), nan, logs), low, high)
    image = axis.pcolormesh(
        edges, np.arange(len(rows) + 1), shown, cmap=colors, vmin=low, vmax=high, rasterized=True
    )
    broken = np.ma.masked_where(~np.isposinf(logs), np.ones_like(logs))
    axis.pcolormesh(edges, np.arange(len(rows) + 1), broken, cmap="gray_r", vmin=0, vmax=1, rasterized=True)
    every = max(1, ceil(len(rows) / (height / 0.17)))
    shown_rows = range(0, len(rows), every)
    axis.set_yticks([number + 0.5 for number in shown_rows], [names[number] for number in shown_rows])
    axis.tick_params(axis="y", labelsize=8, length=0)
    axis.invert_yaxis()
    axis.set_xlabel("optimizer step")
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.set_title(title)
    bar = figure.colorbar(image, ax=axis, extend="both", pad=0.015)
    ticks = range(ceil(low), int(high // 1) + 1)
    if len(ticks) >= 2:
        bar.set_ticks(list(ticks), labels=[f"$10^{{{tick}}}$" for tick in ticks])
    else:
        bar.set_label("log10")
    return figure


def _edges(steps: Sequence[int]) -> list[float]:
    """Return the borders between neighbouring steps, and one at either end."""
    if len(steps) < 2:
        return [steps[0] - 0.5, steps[0] + 0.5] if steps else [0.0]
    inner = [(a + b) / 2 for a, b in pairwise(steps)]
    return [steps[0] - (inner[0] - steps[0]), *inner, steps[-1] + (steps[-1] - inner[-1])]


def activation_histograms(moments: Mapping[str, Sequence[Mapping[str, Any]]], *, most: int = 20) -> Figure:
    """Draw a histogram for each layer, first to last, one outline a moment, and their scale over depth.

    A bar that towers over the others, such as a ReLU's zeros, is cut off; the note says how many zeros.

    Args:
        moments: Legend to the layers at that moment, each with `name`, `kind`, `counts`, `low`, `high`,
            `std`, `spread`, `zero` and `saturated` (None where it has no bounds).
        most: Panels; of more layers evenly spaced ones are drawn, the first and the last among them.

    >>> layer = {"name": "act", "kind": "relu", "counts": [3, 1], "low": 0.0, "high": 1.0, "std": 0.4}
    >>> figure = activation_histograms({"step 0": [{**layer, "spread": 0.4, "zero": 0.5, "saturated": None}]})
    >>> [axis.get_title() for axis in figure.axes]
    ['standard deviation over depth (dashed: of a unit, between samples)', 'act (relu)']
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(layer["name"] for layers in moments.values() for layer in layers))
    panels = min(most, len(names))
    shown = [names[round(i * (len(names) - 1) / max(panels - 1, 1))] for i in range(panels)]
    columns = min(len(shown), 4) or 1
    lines = ceil(len(shown) / columns) + 1
    figure = Figure(figsize=(max(3.1 * columns, 6), 2.1 * lines), layout="constrained")
    grid = figure.add_gridspec(lines, columns)
    colors = dict(zip(moments, COLORS.values(), strict=False))
    _depth(figure.add_subplot(grid[0, :]), moments, names, colors)
    for number, name in enumerate(shown):
        axis = figure.add_subplot(grid[1 + number // columns, number % columns])
        found = {
            moment: layer for moment, layers in moments.items() for layer in layers if layer["name"] == name
        }
        tops = [0.0]
        for line, (moment, layer) in enumerate(found.items()):
            low, width = layer["low"], (layer["high"] - layer["low"]) / len(layer["counts"])
            edges = [low + width * i for i in range(len(layer["counts"]) + 1)]
            shares = [count / (sum(layer["counts"]) or 1) for count in layer["counts"]]
            tops += [min(max(shares), 3 * sorted(shares)[-2] or max(shares))]
            axis.stairs(shares, edges, color=colors.get(moment), fill=True, alpha=0.25)
            axis.stairs(shares, edges, color=colors.get(moment), linewidth=1)
            note = f"std {layer['std']:.2g}" + (
                f", zero {layer['zero']:.0%}" if layer["kind"] == "relu" else ""
            )
            note += "" if layer["saturated"] is None else f", at bounds {layer['saturated']:.0%}"
            place: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 7, "transform": axis.transAxes}
            axis.text(0.97, 0.95 - 0.13 * line, note, color=colors.get(moment), **place)
        axis.set_ylim(0, (max(tops) or 1) * 1.45)  # room for the notes
        kind = next(iter(found.values()))["kind"]
        axis.set_title(f"{name if len(name) < 32 else '…' + name[-30:]} ({kind})", fontsize=8)
        axis.set_yticks([])
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.tick_params(labelsize=7)
    return figure


def _depth(
    axis: Axes,
    moments: Mapping[str, Sequence[Mapping[str, Any]]],
    names: Sequence[str],
    colors: Mapping[str, str],
) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

    values = [1.0] if not names else []
    for moment, layers in moments.items():
        at = [names.index(layer["name"]) + 1 for layer in layers]
        for key, style in (("std", "-"), ("spread", "--")):
            stds = [layer[key] if isfinite(layer[key]) and layer[key] > 0 else nan for layer in layers]
            values += [std for std in stds if std == std]
            label = moment if key == "std" else None
            axis.plot(at, stds, style, marker="o", markersize=3, color=colors.get(moment), label=label)
    axis.set_yscale("log")
    if values:  # a decade or more: else noise looks like a slope
        middle = (min(values) * max(values)) ** 0.5
        axis.set_ylim(min(min(values) / 1.5, middle / 3.2), max(max(values) * 1.5, middle * 3.2))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title("standard deviation over depth (dashed: of a unit, between samples)", fontsize=9)
    axis.set_xlabel("layer, first to last", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.25)
    axis.legend(fontsize="small")
