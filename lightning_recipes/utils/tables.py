"""Tables for the terminal, for whoever shows one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table


def rows_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str, notes: Sequence[str] = ()
) -> Table:
    """Return a table; the first and the last column are words, the others numbers.

    Columns in which no row has anything but `–` are left out.

    Args:
        columns: Headers.
        rows: As many cells each.
        title: Above the table.
        notes: Lines below it.

    >>> rows_table(["layer", "std", ""], [["act1", "0.58", "ok"]], title="activations").row_count
    1
    """
    table = Table(title=title, caption="\n".join(notes) or None, caption_justify="left", title_justify="left")
    rows = list(rows)
    used = [i for i in range(len(columns)) if not rows or any(row[i] not in ("", "–") for row in rows)]
    for i in used:
        words = i in (0, len(columns) - 1)
        table.add_column(columns[i], justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*(row[i] for i in used))
    return table
