"""`ensemble`: from checkpoints to one classifier, and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console

# So that the CLI knows their names
from .. import datamodules
from ..modules import EnsembleClassifier
from ..reports.ensembles import ensemble_rows, ensemble_table
from ..scores import Scored, select_members
from ..utils.errors import UserError
from ..utils.files import probe, write_csv
from . import COMMANDS
from .parser import RecipesParser, user_error
from .predict import find_device
from .runs import explain_write_errors
from .train import quiet

# Settings of the data that decide which image is in which split
_SPLITS = ("root", "labels", "name", "split_seed", "val_fraction", "test_fraction", "fold", "folds")


def run_ensemble(arguments: Sequence[str]) -> None:
    """Pool checkpoints, fit the temperature, print the report, and write the ensemble and the report.

    Raises:
        UserError: Whatever is wrong with the arguments, the checkpoints, the data or the disk.
    """
    quiet()
    try:
        _run(list(arguments))
    except ValueError as error:  # jsonargparse wraps what a constructor raises
        if (cause := user_error(error)) is None:
            raise
        raise cause from None


def _run(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        _parser(with_data=True).parse_args(arguments)
    of_data, others = _split_arguments(arguments)
    given = _parser().parse_args(others)
    output, table = Path(given.output), Path(given.report)
    if output == table:
        raise UserError(f"`output` and `report` are the same file, {output}. Give two.")
    for name, path in (("output", output), ("report", table)):
        if path.is_dir():
            raise UserError(f"`{name}` {path} is a folder. Give the name of a file.")
        if path.exists() and not given.overwrite:
            raise UserError(f"{path} exists. Give another, or `--overwrite true`.")
        with explain_write_errors(path, name):
            probe(path)
    model = EnsembleClassifier.from_checkpoints(given.checkpoints).to(find_device(given.device))
    seed_everything(given.seed_everything, verbose=False)
    data = _data(given, of_data, model)
    notes = []
    validation = model.collect(data.val_dataloader())
    if given.select:
        kept = select_members(*validation)
        if dropped := [name for number, name in enumerate(model.names) if number not in kept]:
            notes.append(f"left out by the NLL on the val split: {', '.join(dropped)}")
        validation = Scored(validation.probabilities[kept], validation.targets)
        model = model.subset(kept)
    split, scored = _measured_split(model, data, validation)
    report = model.report(scored, validation=validation, seed=given.seed_everything)
    assert report.temperature is not None  # there is a validation split
    model.temperature = report.temperature
    with explain_write_errors(output, "output"):
        model.save(output)
    with explain_write_errors(table, "report"):
        write_csv(table, ensemble_rows(report))
    title = f"Ensemble of {len(model.members)} on the {split}, {report.samples} images"
    notes += [f"ensemble: {output}", f"report: {table}"]
    Console(soft_wrap=True).print(ensemble_table(report, title=title, notes=notes))


def _parser(*, with_data: bool = False) -> RecipesParser:
    parser = RecipesParser(prog="lightning-recipes ensemble", description=COMMANDS["ensemble"])
    parser.add_argument(
        "checkpoints", nargs="+", type=str, help="Checkpoints of `fit`, and files of ensembles."
    )
    parser.add_argument(
        "--config",
        type=str | None,
        default=None,
        help="A run's config.yaml, which names the data; by default that beside the first checkpoint.",
    )
    parser.add_argument("--output", type=str, default="ensemble.ckpt", help="The file of the ensemble.")
    parser.add_argument("--report", type=str, default="ensemble.csv", help="The report as a CSV.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace outputs that exist.")
    parser.add_argument(
        "--batch_size", type=int | None, default=None, help="Images a batch; else the data's."
    )
    parser.add_argument(
        "--select",
        type=bool,
        default=False,
        help="Leave out members without which the NLL on the val split is lower.",
    )
    parser.add_argument(
        "--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps; auto takes a GPU if any."
    )
    parser.add_argument("--seed_everything", type=int, default=0, help="Of the bootstrap.")
    if with_data:
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)
    return parser


def _split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments of the data, each joined with its value, and the others.

    >>> _split_arguments(["a.ckpt", "--data", "D", "--data.root", "r", "--select", "true", "b.ckpt"])
    (['--data=D', '--data.root=r'], ['a.ckpt', '--select', 'true', 'b.ckpt'])
    """
    of_data: list[str] = []
    others: list[str] = []
    waiting = False
    for argument in arguments:
        if waiting:
            of_data[-1] += f"={argument}"
            waiting = False
        elif argument.partition("=")[0].partition(".")[0] == "--data":
            of_data.append(argument)
            waiting = "=" not in argument
        else:
            others.append(argument)
    return of_data, others


def _data(given: Any, arguments: list[str], model: EnsembleClassifier) -> LightningDataModule:  # noqa: ANN401
    """Return the datamodule of the arguments laid over the run's config, ready to give its splits."""
    first = Path(given.checkpoints[0])
    beside = first.parent / "config.yaml"
    if not beside.is_file():  # the members of a snapshot ensemble lie a folder below
        beside = first.parent.parent / "config.yaml"
    path = Path(given.config) if given.config else beside
    named = any(argument.startswith("--data=") for argument in arguments)
    config: dict[str, Any] | None = None
    if given.config or (path.is_file() and not named):
        config = _data_config(path)
    if config is None and given.config and not named:
        raise UserError(f"{path} does not say what the data are. Give `--data CLASS` with its arguments.")
    if config is None and not named:
        raise UserError(
            f"There is no config.yaml beside {first} that says what the data are. Give `--config "
            "runs/NAME/config.yaml`, or `--data CLASS` with its arguments."
        )
    parser = RecipesParser(prog="lightning-recipes ensemble")
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=True)
    if config is not None:
        parser.set_defaults({"data": config})
    parsed = parser.parse_args(arguments)
    if given.batch_size is not None:
        if given.batch_size < 1:
            raise UserError(f"`--batch_size` must be at least 1, got {given.batch_size}.")
        parsed.data.init_args["batch_size"] = given.batch_size
    _warn_of_other_splits(given.checkpoints, parsed.data)
    data: LightningDataModule = parser.instantiate_classes(parsed).data
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)  # the datamodule asks its Trainer's module for the normalisation
    data.trainer = trainer
    data.prepare_data()
    for stage in ("validate", "test"):
        data.setup(stage)
    model.check_data(data)
    return data


def _data_config(path: Path) -> dict[str, Any] | None:
    """Return the data's section of a run's config, None where it has none.

    Raises:
        UserError: It cannot be read.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"`--config` {path} cannot be read: {reason}. Give a run's config.yaml.") from error
    found = config.get("data") if isinstance(config, dict) else None
    if isinstance(found, dict) and str(found.get("class_path")).endswith("CachedFeatures"):
        found = (found.get("init_args") or {}).get("data")  # members take images
    return found if isinstance(found, dict) else None


def _warn_of_other_splits(checkpoints: Sequence[str], data: Any) -> None:  # noqa: ANN401 - a parsed namespace
    """Say which members may have been trained on the images that are to measure them."""
    measured = {"class_path": data.class_path, **vars(data.init_args)}
    for checkpoint in checkpoints:
        path = Path(checkpoint).parent / "config.yaml"
        trained = _data_config(path) if path.is_file() else None
        if trained is None:
            continue
        before = {"class_path": trained.get("class_path"), **(trained.get("init_args") or {})}
        shared = [name for name in ("class_path", *_SPLITS) if name in before and name in measured]
        if other := [name for name in shared if before[name] != measured[name]]:
            name = other[0]
            rank_zero_warn(
                f"{checkpoint} was trained on another split (`data.{name}`: {before[name]} against "
                f"{measured[name]}), perhaps on images that now measure it: its scores may be too good."
            )


def _measured_split(
    model: EnsembleClassifier, data: LightningDataModule, validation: Scored
) -> tuple[str, Scored]:
    """Return the name of the split that the report is about, and what the members say of it."""
    has_test = (
        "test" in data.splits
        if isinstance(data, datamodules.ImageDataModule)
        else is_overridden("test_dataloader", data)
    )
    if has_test:
        return "test split", model.collect(data.test_dataloader())
    return "val split, where the temperature was fitted, for want of a test split", validation
