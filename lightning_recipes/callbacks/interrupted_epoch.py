"""Where in the Trainer's loops a checkpoint was taken, and what it would leave out on going on from there."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

_IN_FIRST_BATCH = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # progress of a validation


def end_epoch_properly(loop: dict[str, Any]) -> bool:
    """Have Lightning end the epoch of a checkpoint that was taken at its last batch; return whether it was.

    By itself it goes on with the next epoch, without the validation and the hooks that were to come.

    Args:
        loop: The state of the fit loop, which is changed.
    """
    training, validating = loop["epoch_loop.batch_progress"], loop["epoch_loop.val_loop.batch_progress"]
    done = training["current"]["processed"]
    cut = bool(training["is_last_batch"]) and training["current"]["completed"] == done - 1
    if cut:
        for counts in (training["current"], training["total"]):
            counts["completed"] += 1
        for counts in (validating["current"], validating["total"]):
            counts.update(_IN_FIRST_BATCH)
    return cut


def make_up_for_validation(trainer: Trainer) -> bool:
    """Have Lightning validate within an epoch, where the checkpoint was taken just before; return whether so.

    By itself it trains on, and the validation is lost.
    """
    training = trainer.fit_loop.epoch_loop.batch_progress
    total = training.total.state_dict()
    cut = bool(total["completed"] == total["processed"] - 1)
    if cut:
        training.increment_completed()
        validating = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        for counts in (validating.current, validating.total):
            vars(counts).update(_IN_FIRST_BATCH)
        trainer.fit_loop.update_restart_stage()
    return cut


def batches_seen(trainer: Trainer) -> int:
    """Return how many batches of an epoch that was cut off were done; 0 between two epochs."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    done = int(progress.current.state_dict()["processed"])
    return 0 if progress.is_last_batch or done >= trainer.num_training_batches else done
