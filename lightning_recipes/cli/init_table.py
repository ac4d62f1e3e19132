"""`init-table`: the handbook's table of initializations, measured."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console

from ..initialization.reference import (
    BATCH,
    REFERENCES,
    TOLERANCE,
    WIDTH,
    largest_difference,
    reference_table,
)
from ..utils.tables import rows_table
from . import COMMANDS
from .parser import RecipesParser


def run_init_table(arguments: Sequence[str]) -> int:
    """Measure the table, print it beside the handbook's figures, and return the exit status.

    Returns:
        0, or 1 where a figure is further than 0.03 from the handbook's. They are of width 4096; of another
        one nothing is compared.

    Raises:
        UserError: Whatever is wrong with the arguments.
    """
    parser = RecipesParser(prog="lightning-recipes init-table", description=COMMANDS["init-table"])
    parser.add_argument("--width", type=int, default=WIDTH, help="Units of each layer.")
    parser.add_argument("--seed", type=int, default=0, help="Of the inputs and the weights.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    given = parser.parse_args(list(arguments))
    measured = reference_table(width=given.width, seed=given.seed)
    difference = largest_difference(measured) if given.width == WIDTH else None
    if given.json:
        print(json.dumps({"width": given.width, "measured": measured, "largest_difference": difference}))
    else:
        _print(measured, given.width, difference)
    return int(difference is not None and difference > TOLERANCE)


def _print(measured: dict[str, list[float]], width: int, difference: float | None) -> None:
    rows = []
    for name, case in REFERENCES.items():
        rows.append([name, *(f"{value:.2f}" for value in measured[name]), "measured"])
        if difference is not None:
            rows.append(["", *(f"{value:.2f}" for value in case.stds), "handbook"])
    notes = [f"width {width}, {BATCH} standard-normal inputs, each with weights of its own"]
    if difference is None:
        notes.append(f"the handbook's figures are of width {WIDTH}")
    else:
        said = "within" if difference <= TOLERANCE else "NOT within"
        notes.append(f"largest difference {difference:.3f}, {said} {TOLERANCE}")
    columns = ["weights", *(str(number) for number in range(1, len(rows[0]) - 1)), ""]
    Console().print(
        rows_table(columns, rows, title="Standard deviation of activations by layer", notes=notes)
    )
