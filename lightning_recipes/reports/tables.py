"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

_TITLES = {"loss": "loss", "acc": "accuracy", "ece": "calibration error"}


def split_table(
    measured: Mapping[str, Mapping[str, float]], *, title: str, notes: Sequence[str] = ()
) -> Table:
    """Return a table with a row a split.

    Args:
        measured: Split to metrics by name. Where `loss` and `acc` are among them, these and `ece` are shown,
            else all.
        title: Above the table.
        notes: Lines below it.

    >>> table = split_table({"val": {"loss": 0.5, "acc": 0.75, "f1": 0.7}}, title="best weights")
    >>> [column.header for column in table.columns]
    ['split', 'loss', 'accuracy']
    """
    names = list(dict.fromkeys(name for metrics in measured.values() for name in metrics))
    shown = [name for name in _TITLES if name in names] if {"loss", "acc"} <= set(names) else names
    table = Table(title=title, caption="\n".join(notes) or None, caption_justify="left", title_justify="left")
    table.add_column("split")
    for name in shown:
        table.add_column(_TITLES.get(name, name), justify="right")
    for split, metrics in measured.items():
        table.add_row(split, *(_format(name, metrics.get(name)) for name in shown))
    return table


def _format(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2%}" if name.startswith("acc") else f"{value:.4f}"
