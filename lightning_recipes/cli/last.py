"""The checkpoint to go on from."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


def last_checkpoint(best: ModelCheckpoint, given: Any) -> list[ModelCheckpoint]:  # noqa: ANN401 - parsed arguments
    """Take the writing of last.ckpt over from `best`: Lightning's writes it only when it is the best, too.

    Args:
        best: Writes the best checkpoint; where it writes no last one, nothing is taken over.
        given: Its arguments, which say when a checkpoint is due.
    """
    if best.save_last is not True:
        return []
    best.save_last = False
    when = ("every_n_train_steps", "train_time_interval", "every_n_epochs", "save_on_train_epoch_end")
    return [
        _LastCheckpoint(
            best.dirpath,
            filename=best.CHECKPOINT_NAME_LAST,
            enable_version_counter=False,
            save_weights_only=given.save_weights_only,
            **{name: given[name] for name in when},
        )
    ]


class _LastCheckpoint(ModelCheckpoint):
    """Written whenever a checkpoint is due, and when Ctrl-C ends the run of one process."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        begun = trainer.state.fn == "fit" and trainer.global_step > self._last_global_step_saved
        if isinstance(exception, KeyboardInterrupt) and begun and trainer.world_size == 1:
            self._save_checkpoint(trainer, self.format_checkpoint_name({}))
