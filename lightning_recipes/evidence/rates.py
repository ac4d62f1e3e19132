"""The learning rate of a run that has not happened yet."""

from __future__ import annotations

import copy
import warnings
from math import inf, isfinite

import torch
from lightning.pytorch import Trainer

MOST_STEPS = 20_000


def simulated_rates(trainer: Trainer) -> list[float] | str:
    """Return the largest rate at each step of the run, from copies of the schedulers; or why there is none.

    Schedules of more than 20 000 steps that move by the step are refused: closed forms may be long to walk.

    Args:
        trainer: Within a fit, its optimizers and schedulers set up. They are not moved.

    Returns:
        One rate a step, or one an epoch where the schedulers move by the epoch; or the reason, as half a
        sentence.
    """
    configs = trainer.lr_scheduler_configs
    if not configs:
        return "no schedule that Lightning knows of"
    if any(config.reduce_on_plateau for config in configs):
        return "the schedule follows a metric"
    batches = trainer.num_training_batches
    steps = trainer.estimated_stepping_batches if _finite(trainer) else inf
    if not isfinite(steps) or steps < 2 or not isfinite(batches):
        return "the length of the run is not known"
    per_epoch = max(1, round(steps / (trainer.max_epochs or 1)))
    by_step = any(config.interval == "step" for config in configs)
    moves = int(steps) if by_step else trainer.max_epochs or 1
    if moves > MOST_STEPS:
        return f"the schedule moves {moves} times, more than {MOST_STEPS} are not simulated"
    try:
        schedulers = [copy.deepcopy(config.scheduler) for config in configs]
    except Exception as error:  # a scheduler of somebody else's
        return f"the scheduler cannot be copied: {error}"
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of schedules that step before their optimizer
        for move in range(moves):
            rates.append(max(g["lr"] for s in schedulers for g in s.optimizer.param_groups))
            for config, scheduler in zip(configs, schedulers, strict=True):
                every = config.frequency * (per_epoch if by_step and config.interval == "epoch" else 1)
                if (move + 1) % every == 0:
                    scheduler.step()
    return [float(rate) if not isinstance(rate, torch.Tensor) else rate.item() for rate in rates]


def _finite(trainer: Trainer) -> bool:
    return (trainer.max_epochs or -1) > 0 or trainer.max_steps > 0
