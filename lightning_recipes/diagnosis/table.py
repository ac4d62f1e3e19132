"""Findings for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ..checks import Finding

_STYLES = {"FAIL": "bold red", "WARN": "yellow", "INFO": "cyan", "SKIP": "dim", "PASS": "green"}


def findings_table(findings: Sequence[Finding], *, title: str) -> Table:
    """Return a table with a row a finding, worst first; those that pass share one row.

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
    for finding in (f for f in findings if f.status != "PASS"):
        said = Text(finding.message)
        if finding.advice and finding.status != "SKIP":
            said.append(f"\n→ {finding.advice}", style="bold")
        status = Text(finding.status, style=_STYLES[finding.status])
        table.add_row(status, finding.check, said, "\n".join(finding.causes[:3]))
    passed = [f.check for f in findings if f.status == "PASS"]
    if passed:
        table.add_row(Text("PASS", style=_STYLES["PASS"]), f"{len(passed)} checks", ", ".join(passed), "")
    return table
