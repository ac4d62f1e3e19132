"""How far a run has come."""

from __future__ import annotations

from math import ceil, isinf

from lightning.pytorch import Trainer


def steps_of_run(trainer: Trainer) -> int | None:
    """Return how many optimizer steps the run will have, one a batch where a module steps by hand.

    None where the run has no end, or its loader no length.
    """
    total = trainer.estimated_stepping_batches
    return int(total) if total > 0 and not isinf(total) else None


def epochs_of_run(trainer: Trainer) -> float | None:
    """Return how many epochs `steps_of_run` are: not a whole number where `max_steps` ends one early.

    None where the run has no end, or its loader no length.
    """
    steps = steps_of_run(trainer)
    if trainer.train_dataloader is None:  # `steps_of_run` has no need of it where `max_steps` stands alone
        trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    if steps is None or isinf(batches) or batches == 0:
        return None
    per_epoch = ceil(batches / trainer.accumulate_grad_batches)  # the last step takes what is left
    return steps / per_epoch


def steps_done(trainer: Trainer) -> int:
    """Return how many of `steps_of_run` are done.

    Where a module steps by hand, with several optimizers or only now and then, each batch is one.
    """
    assert trainer.lightning_module is not None
    if trainer.lightning_module.automatic_optimization:
        return trainer.global_step
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.state_dict()["processed"])


def fraction_done(trainer: Trainer) -> float | None:
    """Return the fraction of the run before this batch; None where the run has no end.

    By the epochs and the batches of this one; where a loader has no length, by the epochs alone. By the
    optimizer steps, where `max_steps` comes first.
    """
    fractions = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        batches, done = trainer.num_training_batches, trainer.fit_loop.epoch_loop.batch_progress.current
        within = 0.0 if isinf(batches) else done.completed / batches
        fractions.append((trainer.current_epoch + within) / trainer.max_epochs)
    if trainer.max_steps > 0:
        fractions.append(trainer.global_step / trainer.max_steps)
    return max(fractions, default=None)
