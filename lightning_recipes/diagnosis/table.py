"""Findings for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ..checks import Finding

_STYLES = {"FAIL": "bold red", "WARN": "yellow", "INFO": "cyan", "SKIP": "dim", "PASS": "green"}


def findings_table(findings: Sequence[Finding], *, title: str) -> Table:
    """Return a table with a row a finding, worst first; those that pass or could not run share one.

    Args:
        findings: In the order in which they are shown.
        title: Above the table.

    >>> findings_table([Finding("a", "PASS", ""), Finding("b", "PASS", "")], title="check").row_count
    1
    """
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("", no_wrap=True)
    table.add_column("check")
    table.add_column("found, and what to do")
    table.add_column("likely causes")
    for finding in findings:
        if finding.status in ("SKIP", "PASS"):
            continue
        text = Text(finding.message)
        if finding.advice:
            text.append(f"\n→ {finding.advice}", style="bold")
        table.add_row(_status(finding.status), finding.check, text, "\n".join(finding.causes[:3]))
    skipped = [f"{f.check}: {f.message}" for f in findings if f.status == "SKIP"]
    passed = [f.check for f in findings if f.status == "PASS"]
    for status, said, apart in (("SKIP", skipped, "\n"), ("PASS", passed, ", ")):
        if said:
            number = f"{len(said)} check" + ("s" if len(said) > 1 else "")
            table.add_row(_status(status), number, Text(apart.join(said), style="dim"), "")
    return table


def _status(status: str) -> Text:
    return Text(status, style=_STYLES[status])
