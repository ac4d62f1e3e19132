"""`plot-schedule`: the learning rate of a run that is yet to come, as a picture and a table."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path

import torch
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch.optim import SGD

from ..plots import learning_rate
from ..schedules import Schedule, Shape
from ..utils.errors import UserError
from ..utils.files import replacing
from . import COMMANDS
from .parser import RecipesParser
from .runs import explain_write_errors

_OF_THE_COMMAND = ("config", "shape", "lr", "steps", "output", "overwrite")  # the others are the schedule's
_POINTS = 20_000  # of a curve: in a longer run, drops and peaks are found as exactly as this


def run_plot_schedule(arguments: Sequence[str]) -> None:
    """Parse the arguments, write the picture, and print its path and a table.

    Raises:
        UserError: Whatever is wrong with the arguments or the output.
    """
    given = _parser().parse_args(list(arguments))
    output = Path(given.output)
    kind = output.suffix[1:].lower()
    if output.is_dir():
        raise UserError(f"`--output` {output} is a folder. Give the name of a file.")
    if kind not in Figure().canvas.get_supported_filetypes():
        raise UserError(f"`--output` must be a picture such as schedule.png, .svg or .pdf, got {output}.")
    if output.exists() and not given.overwrite:
        raise UserError(f"{output} exists. Give another `--output`, or `--overwrite true`.")
    if not 0 < given.lr < inf:
        raise UserError(f"`--lr` must be above 0, got {given.lr}.")
    if given.steps < 1:
        raise UserError(f"`--steps` must be at least 1, got {given.steps}.")
    settings = {name: value for name, value in vars(given).items() if name not in _OF_THE_COMMAND}
    schedules = {
        shape: Schedule(SGD([torch.zeros(1)], given.lr), given.steps, shape=shape, **settings)
        for shape in dict.fromkeys(given.shape)
    }
    steps = _evenly(given.steps, _POINTS)
    rates = {name: [given.lr * s.factor(step) for step in steps] for name, s in schedules.items()}
    per_epoch = given.steps / given.epochs if given.epochs else None
    figure = learning_rate(
        rates, positions=[step / (per_epoch or 1) for step in steps], steps_per_epoch=per_epoch
    )
    with explain_write_errors(output.parent, "output"), replacing(output) as partial:
        figure.savefig(partial, format=kind, dpi=120)
    Console().print(_table(schedules, given.steps, given.lr, per_epoch))
    print(f"schedule: {output}")


def _parser() -> RecipesParser:
    parser = RecipesParser(prog="lightning-recipes plot-schedule", description=COMMANDS["plot-schedule"])
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML file with these arguments.")
    parser.add_argument(
        "--shape",
        nargs="+",
        type=Shape,
        default=["one_cycle"],
        metavar="SHAPE",
        help="One or several, drawn in one picture.",
    )
    parser.add_argument("--lr", type=float, default=0.1, help="The optimizer's rate, which is scaled.")
    parser.add_argument("--steps", type=int, default=10000, help="Optimizer steps in the run.")
    parser.add_argument("--output", type=str, default="schedule.png", help="The picture: .png, .svg or .pdf.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace an output that exists.")
    parser.add_class_arguments(Schedule, skip={"optimizer", "total_steps", "shape"})
    parser.set_defaults(epochs=100)
    return parser


def _evenly(total: int, most: int) -> list[int]:
    """Return at most `most` steps of 0..total - 1, evenly spaced, the first and the last among them.

    >>> _evenly(9, 5)
    [0, 2, 4, 6, 8]
    """
    count = min(total, most)
    return [round(number * (total - 1) / max(count - 1, 1)) for number in range(count)]


def _table(schedules: dict[Shape, Schedule], total: int, lr: float, per_epoch: float | None) -> Table:
    """Return a table of rates at the quarters of the run and at each peak; of one shape also its factors."""
    quarters = {min(round(total * quarter / 4), total - 1) for quarter in range(5)}
    peaks = {max(_evenly(total, _POINTS), key=schedule.factor) for schedule in schedules.values()}
    steps = sorted(quarters | peaks)
    table = Table(title=f"Learning rate; the optimizer's is {lr:g}", title_justify="left")
    table.add_column("at step" if per_epoch is None else "at step\nat epoch")
    for step in steps:
        epoch = "" if per_epoch is None else f"\n{step / per_epoch:.4g}"
        table.add_column(f"{step}{epoch}", justify="right")
    for name, schedule in schedules.items():
        table.add_row(name, *(f"{lr * schedule.factor(step):.3g}" for step in steps))
    if len(schedules) == 1:
        table.add_row("factor", *(f"{schedule.factor(step):.3g}" for step in steps))
    return table
