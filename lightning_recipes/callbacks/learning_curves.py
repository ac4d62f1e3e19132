"""The curves of a run, as a picture and as numbers."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..plots import learning_curves
from ..utils.errors import UserError
from ..utils.files import run_directory
from .epoch_metrics import EpochMetrics


class LearningCurves(Callback):
    """Write every logged epoch metric over the run to `learning_curves.png` and `learning_curves.csv`.

    A value stands in the row of the step at which it was measured: a metric that is validated every third
    epoch has a third of the points. The files are written when the fit ends, also by an exception or
    Ctrl-C, and then hold what was measured until then. A resumed run goes on with the curves of the run
    that was cut off.

    Args:
        dirpath: Where to write; by default the run's directory (`trainer.log_dir` or `default_root_dir`).
        name: Name of the files without their endings. Two instances in one run need two names.
        best: The metric whose best value is marked in the picture; nothing is marked when it is never logged.
        mode: Whether the best value of `best` is the `min` or the `max`.

    Raises:
        UserError: `name` holds a path, or `mode` is neither `min` nor `max`.

    >>> LearningCurves(name="fold_1").state_key
    "LearningCurves{'name': 'fold_1'}"
    """

    def __init__(
        self,
        dirpath: str | PathLike[str] | None = None,
        *,
        name: str = "learning_curves",
        best: str = "val/loss",
        mode: str = "min",
    ) -> None:
        if not name or Path(name).name != name:
            raise UserError(
                f"`name` must be a file's name without folders, got {name!r}. Give folders by `dirpath`."
            )
        if mode not in ("min", "max"):
            raise UserError(f"`mode` must be `min` or `max`, got {mode!r}.")
        self.dirpath, self.name, self.best, self.mode = dirpath, name, best, mode
        self._metrics = EpochMetrics()
        self._directory: Path | None = None

    @property
    def rows(self) -> list[dict[str, float]]:
        """The points so far: a row a moment, with `epoch`, `step` and what was measured."""
        return self._metrics.rows

    @property
    def state_key(self) -> str:
        """Apart for each `name`."""
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Return the points so far."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the points of a checkpoint."""
        self._metrics.rows = [dict(row) for row in state_dict["rows"]]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew; a resumed fit then loads its points."""
        if stage == "fit":
            self._metrics = EpochMetrics()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the directory: on every rank, for `log_dir` is a collective call."""
        self._directory = run_directory(trainer, self.dirpath)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See what is logged already."""
        self._metrics.before_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take what this validation measured."""
        self._metrics.after_validation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take what this epoch of training measured."""
        self._metrics.after_training(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files."""
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what there is."""
        if trainer.state.fn == "fit":
            self._write(trainer)

    def best_step(self) -> float | None:
        """Return the step with the best value of `best`, the first of equals; None when never logged."""
        points = [
            (row[self.best], row["step"])
            for row in self.rows
            if row.get(self.best, float("nan")) == row.get(self.best)
        ]
        if not points:
            return None
        better = min if self.mode == "min" else max
        return better(points, key=lambda point: point[0])[1]

    def _write(self, trainer: Trainer) -> None:
        rehearsal = getattr(trainer, "fast_dev_run", False)
        if not self.rows or self._directory is None or not trainer.is_global_zero or rehearsal:
            return
        names = sorted({name for row in self.rows for name in row} - {"epoch", "step"})
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{self.name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["epoch", "step", *names])
            writer.writeheader()
            for row in self.rows:
                writer.writerow({**row, "epoch": int(row["epoch"]), "step": int(row["step"])})
        learning_curves(self.rows, best_step=self.best_step()).savefig(path.with_suffix(".png"), dpi=120)
