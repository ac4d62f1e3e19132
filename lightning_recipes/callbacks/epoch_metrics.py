"""The metrics that a fit logs, a row a moment."""

from __future__ import annotations

from lightning.pytorch import Trainer


class EpochMetrics:
    """Collects what each validation and each epoch of training measured, in the row of its step.

    A metric that is validated every third epoch has a third of the values.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._before_validation: set[str] = set()
        self._validation_names: set[str] = set()

    def before_validation(self, trainer: Trainer) -> None:
        """See what is logged already."""
        self._before_validation = set(trainer.callback_metrics)

    def after_validation(self, trainer: Trainer) -> None:
        """Take what this validation measured."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validation_names |= set(trainer.callback_metrics) - self._before_validation
        self._add(trainer, self._validation_names)

    def after_training(self, trainer: Trainer) -> None:
        """Take what this epoch of training measured."""
        self._add(trainer, set(trainer.callback_metrics) - self._validation_names)

    def add(self, trainer: Trainer, values: dict[str, float]) -> None:
        """Put values into the row of this step."""
        step = float(trainer.global_step)
        if not self.rows or self.rows[-1]["step"] != step:
            self.rows.append({"epoch": float(trainer.current_epoch), "step": step})
        self.rows[-1].update(values)

    def _add(self, trainer: Trainer, names: set[str]) -> None:
        values = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name in names and name.removesuffix("_step").removesuffix("_epoch") not in names - {name}
        }  # what is logged by step and by epoch comes three times: as X, X_step and X_epoch
        if values:
            self.add(trainer, values)
