"""What ends a trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Ending(Callback):
    """Counts the batches, ends a trial in time, and shows it the run's datamodule.

    Lightning sets up and tears down the datamodule that it sees before the first of these hooks and after the
    last; in between, a training step may look it up.
    """

    def __init__(
        self,
        most: int,
        deadline: float,
        after: Callable[[LightningModule, int], bool | None] | None,
        datamodule: Any,  # noqa: ANN401 - any, or none
    ) -> None:
        self.most, self.deadline, self.after, self.steps = most, deadline, after, 0
        self.datamodule = datamodule

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the datamodule."""
        trainer.datamodule = self.datamodule  # type: ignore[attr-defined]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hide it."""
        trainer.datamodule = None  # type: ignore[attr-defined]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Hide it."""
        trainer.datamodule = None  # type: ignore[attr-defined]

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *_: Any,  # noqa: ANN401 - outputs and batch have any form
    ) -> None:
        """Count, and stop where it is enough."""
        self.steps += 1
        enough = self.after is not None and bool(self.after(pl_module, self.steps))
        if enough or self.steps >= self.most or time.monotonic() > self.deadline:
            trainer.should_stop = True
