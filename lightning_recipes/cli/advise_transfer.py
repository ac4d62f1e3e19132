"""`advise-transfer`: from the data and a pretrained backbone to a way of transfer."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from ..datamodules import ImageDataModule
from ..modules import ImageClassifier
from ..recipe import advise_transfer
from ..utils.errors import UserError
from .parser import explain_errors
from .train import RecipesCLI, quiet


def run_advise_transfer(arguments: Sequence[str]) -> None:
    """Parse the arguments, measure, and print the advice.

    Raises:
        UserError: Whatever is wrong with the arguments, the data or the weights.
    """
    quiet()
    with explain_errors():
        cli = AdviseCLI("advise-transfer", arguments)
    if not isinstance(cli.model, ImageClassifier) or not isinstance(cli.datamodule, ImageDataModule):
        raise UserError("`advise-transfer` takes an ImageClassifier and an ImageDataModule, or a subclass.")
    report = advise_transfer(cli.model, cli.datamodule, stages=cli.config.stages)
    if cli.config.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        Console(soft_wrap=True).print(report.table())
        print(f"Add to `fit`: {report.setting}")


class AdviseCLI(RecipesCLI):
    """The arguments of `fit`, and which stages are probed."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what `advise-transfer` takes beside what `fit` does."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--stages",
            type=int | list[str] | None,
            default=4,
            help="Probe so many of the last stages, or these: [layer3,layer4]; null for all.",
        )
        parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")

    def before_instantiate_classes(self) -> None:
        """Take the module as its arguments describe it, whatever a configuration's checkpoint is."""
