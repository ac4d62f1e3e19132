"""`check`: what is wrong with a run, before it is begun."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from ..recipe import Report, check
from .parser import explain_errors
from .train import RecipesCLI, quiet


def run_check(arguments: Sequence[str]) -> int:
    """Parse the arguments, examine the run, and print what was found.

    Returns:
        The exit status: 2 for a FAIL, 1 for a WARN with `--strict`, 130 after Ctrl-C, else 0.

    Raises:
        UserError: Whatever is wrong with the arguments.
    """
    quiet()
    try:
        with explain_errors():
            cli = CheckCLI("check", arguments)
            report = cli.check()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130  # as a shell has it after Ctrl-C
    if cli.config.json:
        print(report.to_json())
    else:
        Console().print(report.table())
    return exit_status(report, strict=cli.config.strict)


def exit_status(report: Report, *, strict: bool) -> int:
    """Return 2 for a FAIL, 1 for a WARN where one is strict, else 0."""
    if report.status == "FAIL":
        return 2
    return 1 if report.status == "WARN" and strict else 0


class CheckCLI(RecipesCLI):
    """The arguments of `fit`, and how long, how strict and in which form."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what `check` takes beside what `fit` does."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--seconds", type=float, default=60.0, help="About how long it may take.")
        parser.add_argument("--strict", action="store_true", help="Exit with 1 for a WARN, too.")
        parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")

    def before_instantiate_classes(self) -> None:
        """Take the module as its arguments describe it, whatever a configuration's checkpoint is."""

    def check(self) -> Report:
        """Examine a copy of the module with the data and the Trainer's settings."""
        trainer: Trainer = self.trainer
        if trainer.world_size > 1:
            print("Examined on one device, whatever `--trainer.devices` says.", file=sys.stderr)
        return check(self.model, self.datamodule, seconds=self.config.seconds, trainer=trainer)
