"""An ensemble's report: a table for the terminal, and rows for a CSV."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ..scores import EnsembleReport, Estimate

_SCORES = {"accuracy": "accuracy", "nll": "NLL", "brier": "Brier", "ece": "ECE"}
_GAPS = {"accuracy_gap": "accuracy gap", "nll_gap": "NLL gap"}
_SHORT = len("ensemble")  # longer names of members stand below the table


def ensemble_table(report: EnsembleReport, *, title: str, notes: Sequence[str] = ()) -> Table:
    r"""Return a table with a row a member, then the ensemble's; each score above its interval.

    Args:
        report: By `EnsembleClassifier.report`.
        title: Above the table.
        notes: Lines below it.

    >>> import torch
    >>> from lightning_recipes.scores import measure_ensemble
    >>> members = torch.tensor([[[0.9, 0.1]], [[0.4, 0.6]]])
    >>> table = ensemble_table(measure_ensemble(members, torch.tensor([0])), title="two")
    >>> list(table.columns[1].cells)
    ['100.00%\n100.0%.. 100.0%', '0.00%\n0.0%.. 0.0%', '100.00%\n100.0%.. 100.0%']
    """
    about = [
        f"below each score: its {report.level:.0%} bootstrap interval over {report.samples} samples "
        f"({report.resamples} resamples)",
        "gap: the member's score less the ensemble's, on the same resamples",
    ]
    members = sum(row.accuracy_gap is not None for row in report.rows)
    names = [row.name for row in report.rows]
    if max(map(len, names[:members]), default=0) > _SHORT:
        about += [f"member {number}: {name}" for number, name in enumerate(names[:members], 1)]
        names[:members] = [str(number) for number in range(1, members + 1)]
    if members > 1:
        about.append(f"two members disagree on {report.disagreement:.2%} of the samples")
    if report.temperature is not None:
        about.append(f"temperature: {report.temperature:.4g}")
    table = Table(
        title=title, caption="\n".join([*about, *notes]), caption_justify="left", title_justify="left"
    )
    table.add_column("", overflow="fold")
    for heading in (*_SCORES.values(), *_GAPS.values()):
        table.add_column(heading, justify="right")
    for number, row in enumerate(report.rows):
        cells = [_cell(name, getattr(row, name)) for name in (*_SCORES, *_GAPS)]
        table.add_row(names[number], *cells, end_section=number == members - 1)
    return table


def ensemble_rows(report: EnsembleReport) -> list[list[str]]:
    """Return a header and a row a member and for the ensemble, with all digits; for a CSV.

    A gap is empty where the row is the ensemble's own. What holds for all rows stands in each.
    """
    names = [*_SCORES, *_GAPS]
    header = ["name", *(f"{name}{part}" for name in names for part in ("", "_low", "_high"))]
    header += ["temperature", "disagreement", "samples", "resamples", "level"]
    rows = []
    for row in report.rows:
        estimates: list[Estimate | None] = [getattr(row, name) for name in names]
        numbers = [
            "" if estimate is None else repr(estimate[part]) for estimate in estimates for part in range(3)
        ]
        temperature = report.temperature if row.name == "tempered" else 1.0
        shared = [temperature, report.disagreement, report.samples, report.resamples, report.level]
        rows.append([row.name, *numbers, *map(repr, shared)])
    return [header, *rows]


def _cell(name: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    sign = "+" if name in _GAPS else ""
    value, *ends = estimate
    if "accuracy" in name:
        low, high = (f"{end:{sign}.1%}" for end in ends)
        return f"{value:{sign}.2%}\n{low}.. {high}"  # a narrow terminal breaks the line at the space
    low, high = (f"{end:{sign}.3f}" for end in ends)
    return f"{value:{sign}.4f}\n{low}.. {high}"
