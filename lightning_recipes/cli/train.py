"""`fit`, `validate` and `test`: LightningCLI over our parts."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console

# So that the CLI knows their names
from .. import callbacks, datamodules, modules  # noqa: F401
from ..callbacks import LearningCurves
from ..reports.tables import split_table
from ..schedules import Schedule  # noqa: F401
from ..utils.classes import import_class
from ..utils.errors import UserError
from . import COMMANDS
from .background import BackgroundCheckpointIO
from .checkpoints import class_of, read_checkpoint, warn_of_missing_callbacks
from .last import last_checkpoint
from .memory import keep_freed_memory
from .parser import RecipesParser, explain_errors
from .runs import claim, discard_if_barren, explain_write_errors, free_directory, resume_hint

# The model's argument, and where the data say it
LINKS = {"num_classes": "num_classes", "in_chans": "channels", "image_size": "image_size"}
_WITH_SPLITS = (datamodules.ImageDataModule, datamodules.CachedFeatures)


def run(command: str, arguments: Sequence[str]) -> None:
    """Parse the arguments and run `fit`, `validate` or `test`.

    Raises:
        UserError: Whatever is wrong with the arguments, the data, the checkpoint or the disk.
    """
    quiet()
    with explain_errors():
        cli = RecipesCLI(command, arguments)
        cli.fit() if command == "fit" else cli.evaluate()


class RecipesCLI(LightningCLI):
    """One command: its parser, its parts built from the arguments, and what it does with them.

    Args:
        command: `fit`, `validate` or `test`.
        arguments: What stands behind it on the command line.
    """

    def __init__(self, command: str, arguments: Sequence[str]) -> None:
        keep_freed_memory()
        self.command, self.arguments = command, list(arguments)
        self.run_dir: Path | None = None
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults={"max_epochs": 15, "log_every_n_steps": 10} if command == "fit" else None,
            seed_everything_default=0,
            parser_class=RecipesParser,
            parser_kwargs={"prog": f"lightning-recipes {command}", "description": COMMANDS[command]},
            args=self.arguments,
            run=False,  # one command, one parser: building all of them would take as many times as long
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse them, whatever stands in `sys.argv`."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what our commands take beside Lightning's, and take from the data what they know."""
        parser.set_defaults(
            {
                "model": {"class_path": "lightning_recipes.ImageClassifier"},
                "data": {"class_path": "lightning_recipes.DigitsDataModule"},
            }
        )
        for argument, source in LINKS.items():
            parser.link_arguments(
                "data", f"model.init_args.{argument}", compute_fn=_reader(source), apply_on="instantiate"
            )
        # `validate` and `test` take all that `fit` does, so that a run's config.yaml serves them too
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="The checkpoint to measure, or for `fit` to resume.",
        )
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="For `fit`: by default runs/DATA-BACKBONE-N."
        )
        parser.add_argument(
            "--test_after",
            type=bool,
            default=True,
            help="For `fit`: measure the best weights on the test split too.",
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LearningCurves, "learning_curves")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": "val/loss",
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,  # a better one takes the place of best.ckpt
            }
        )

    def before_instantiate_classes(self) -> None:
        """Let a checkpoint say which module it is of.

        Raises:
            UserError: The arguments ask for another one, or there is none to measure.
        """
        path = self.config.ckpt_path
        if path is None:
            if self.command != "fit":
                raise UserError(
                    f"Missing: `--ckpt_path`, the checkpoint to {self.command}: runs/NAME/best.ckpt."
                )
            return
        checkpoint = read_checkpoint(path)
        if "lightning_recipes" not in checkpoint:  # a module of the user's own: its arguments say what it is
            return
        stored = class_of(checkpoint, path)
        asked, default = self.config.model, self.parser.get_defaults().model
        asked_class = import_class(asked.class_path)
        if self.command == "fit" and issubclass(stored, modules.EnsembleClassifier):
            raise UserError(
                f"{path} is an ensemble, whose members are trained. Resume the run of one of them."
            )
        if asked_class not in (stored, modules.ImageClassifier):
            raise UserError(
                f"{path} is of {stored.__name__}, not of {asked.class_path}. Leave `--model` out."
            )
        hparams = {k: v for k, v in checkpoint.get("hyper_parameters", {}).items() if k not in LINKS}
        for name in set(hparams) & set(vars(default.init_args)) - {"pretrained", "weights", "tta"}:
            given = asked.init_args.get(name)
            if given not in (hparams[name], default.init_args[name]):
                raise UserError(
                    f"{path} is of a module with `{name}: {hparams[name]}`, but `--model.{name}` asks for "
                    f"{given}. Leave it out."
                )
        parts = ["--model", default.class_path, "--data", self.parser.get_defaults().data.class_path]
        given = self.parser.parse_args([*parts, *self.arguments], defaults=False).get("model.init_args.tta")
        if issubclass(stored, modules.ImageClassifier):
            hparams |= {} if given is None else {"tta": given}  # how a module is tested may change
        elif given not in (None, "none"):
            raise UserError(f"{path} is an ensemble, which takes no `--model.tta`. Leave it out.")
        model = {"class_path": f"{stored.__module__}.{stored.__qualname__}", "init_args": hparams}
        self.config = self.parser.parse_object({"model": model}, self.config)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - the Trainer's own arguments
        """Build the Trainer; for `fit`, with a directory of its own for all that the run writes."""
        config = {**self.config_init["trainer"], **kwargs}
        given = config["callbacks"] or []
        extra: list[Callback] = list(given) if isinstance(given, list) else [given]
        if self.command != "fit" or config["fast_dev_run"]:
            config["logger"] = config["logger"] or False
            return Trainer(**{**config, "callbacks": extra, "enable_checkpointing": False})
        self.run_dir = (
            Path(self.config.run_dir) if self.config.run_dir else free_directory(Path("runs"), self._name())
        )
        if config["enable_checkpointing"] is not False:
            self.config_init["checkpoint"].dirpath = str(self.run_dir)
            best = self.config_init["checkpoint"]
            extra += [best, *last_checkpoint(best, self.config.checkpoint)]
        of_this_run = {"run_dir": None, "ckpt_path": None}  # which a run that takes its config.yaml is not
        saved = self.parser.parse_object(of_this_run, self.config)
        extra += [self.config_init["learning_curves"], SaveConfigCallback(self.parser, saved)]
        if config["plugins"] is None and config["strategy"] in ("auto", "ddp"):  # others write for themselves
            config["plugins"] = [BackgroundCheckpointIO()]
        if config["logger"] in (None, True):
            where: dict[str, Any] = {"save_dir": str(self.run_dir), "name": "", "version": ""}
            config["logger"] = [CSVLogger(**where), TensorBoardLogger(**where)]
        trainer = Trainer(**{**config, "callbacks": extra, "default_root_dir": str(self.run_dir)})
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        checkpoints, moments = 3, 2  # best, last and one being written; what Adam keeps beside each weight
        claim(self.run_dir, checkpoints * (1 + moments) * weights)
        return trainer

    def fit(self) -> None:
        """Train, measure the best weights on each split, and print the table."""
        if self.run_dir is None:  # a rehearsal: `fast_dev_run`
            self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=self.config.ckpt_path)
            return
        with explain_write_errors(self.run_dir):
            try:
                warn_of_missing_callbacks(self.config.ckpt_path, self.trainer)
                self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=self.config.ckpt_path)
            except (UserError, MisconfigurationException, OSError):
                discard_if_barren(self.run_dir)
                raise
            except SystemExit:  # by which Lightning ends after Ctrl-C
                print(f"Interrupted.{resume_hint(self.run_dir)}", file=sys.stderr)
                raise
            best = getattr(self.trainer.checkpoint_callback, "best_model_path", "") or None
            measured = self._measure(best)
        curves = self.config_init["learning_curves"]
        notes = [f"run: {self.run_dir}", f"curves: {Path(curves.dirpath or self.run_dir) / curves.name}.png"]
        if best is not None:
            epoch = torch.load(best, map_location="cpu", weights_only=True)["epoch"]
            notes.insert(0, f"best epoch: {epoch} (from 0 to {self.trainer.current_epoch - 1}), {best}")
        _print_table(measured, "Best weights" if best else "Last weights", notes)

    def evaluate(self) -> None:
        """Measure the checkpoint, and print the table."""
        measure = self.trainer.validate if self.command == "validate" else self.trainer.test
        results = measure(
            self.model, datamodule=self.datamodule, ckpt_path=self.config.ckpt_path, verbose=False
        )
        split = "val" if self.command == "validate" else "test"
        _print_table({split: _bare(results)}, self.config.ckpt_path, [])

    def _measure(self, ckpt_path: str | None) -> dict[str, dict[str, float]]:
        """Return the metrics of each split; only those of the test split are new to the loggers."""
        trainer, data = self.trainer, self.datamodule
        measured = {}
        loggers, trainer.loggers = trainer.loggers, []
        if isinstance(data, _WITH_SPLITS):
            train = data.train_eval_dataloader()
            measured["train"] = _bare(trainer.validate(self.model, train, ckpt_path=ckpt_path, verbose=False))
        measured["val"] = _bare(
            trainer.validate(self.model, datamodule=data, ckpt_path=ckpt_path, verbose=False)
        )
        trainer.loggers = loggers
        if self.config.test_after and self._has_test():
            measured["test"] = _bare(
                trainer.test(self.model, datamodule=data, ckpt_path=ckpt_path, verbose=False)
            )
        return measured

    def _has_test(self) -> bool:
        """Return whether there is a test split, and a module that can be tested."""
        if isinstance(self.datamodule, _WITH_SPLITS):
            return "test" in self.datamodule.splits
        return is_overridden("test_dataloader", self.datamodule) and is_overridden("test_step", self.model)

    def _name(self) -> str:
        """Return what the run is about: the data and the backbone."""
        kind = type(self.datamodule).__name__.removesuffix("DataModule")
        data = getattr(self.datamodule, "name", None) or kind
        backbone = dict(self.model.hparams).get("backbone", type(self.model).__name__)
        return f"{data}-{backbone}".lower().replace("/", "_")


def _reader(name: str) -> Callable[[Any], Any]:
    def read(data: Any) -> Any:  # noqa: ANN401 - any datamodule, or none
        return getattr(data, name, None)

    return read


def _bare(results: Sequence[Any]) -> dict[str, float]:
    """Return the metrics of the only loader, without the stage in their names."""
    return {name.rpartition("/")[2]: value for name, value in results[0].items()}


@rank_zero_only
def _print_table(measured: dict[str, dict[str, float]], title: str, notes: list[str]) -> None:
    Console(soft_wrap=True).print(split_table(measured, title=title, notes=notes))


def quiet() -> None:
    """Leave out what says nothing of the user's run: advertisements, and Lightning's warnings of itself."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage() and "TPU" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings(
        "ignore", message=".*callbacks used to create the checkpoint need to be provided.*"
    )
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
