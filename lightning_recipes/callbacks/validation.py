"""Validation beside the Trainer's own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from math import isinf
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from torch import Tensor

from ..utils.loaders import undisturbed
from ..utils.modes import evaluating


def validate_quietly(trainer: Trainer) -> dict[str, Tensor]:
    """Validate the weights that the module now holds, and return the metrics by name.

    The module's own validation hooks run; callbacks, loggers, random numbers and the Trainer's own
    validation, which may be about to begin, take no notice.

    Args:
        trainer: In a fit, with validation data.
    """
    epoch_loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
    loop = _EvaluationLoop(
        trainer, TrainerFn.FITTING, RunningStage.VALIDATING, verbose=False, inference_mode=False
    )
    own = validation_loaders(trainer)
    kept = epoch_loop.val_loop, trainer.callbacks, trainer.loggers  # type: ignore[attr-defined]
    progress = connector._first_loop_iter, connector._current_fx
    known = dict(trainer.callback_metrics)
    try:
        epoch_loop.val_loop, trainer.callbacks, trainer.loggers = loop, [], []  # type: ignore[attr-defined]
        with undisturbed(own) as loaders:
            loop._data_source = _DataLoaderSource(loaders, "val_dataloader")
            loop.run()
            measured = dict(trainer.callback_metrics)
    finally:
        epoch_loop.val_loop, trainer.callbacks, trainer.loggers = kept  # type: ignore[attr-defined]
        connector._first_loop_iter, connector._current_fx = progress
        connector._callback_metrics.clear()
        connector._callback_metrics.update(known)
    return {name: value for name, value in measured.items() if known.get(name) is not value}


def validation_loaders(trainer: Trainer) -> Any:  # noqa: ANN401 - a loader, or a list or dict of them
    """Return the loaders of a fit's validation, made now if no validation has run; None without any."""
    if trainer.val_dataloaders is None and trainer.enable_validation:
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True
    return trainer.val_dataloaders


@torch.no_grad()
def predict_validation(
    trainer: Trainer, predict: Callable[[LightningModule, Any], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor] | None:
    """Return what the module predicts on the validation data, of all ranks; None where there are none.

    Args:
        trainer: In a fit.
        predict: Module and batch to probabilities (B, K) and targets (B,).

    Returns:
        Probabilities, float32 (N, K), and targets, int64 (N,), in main memory.
    """
    module, strategy, plugin = trainer.lightning_module, trainer.strategy, trainer.precision_plugin
    parts: list[tuple[Tensor, Tensor]] = []
    with undisturbed(validation_loaders(trainer)) as loaders, evaluating(module), plugin.forward_context():
        if isinstance(loaders, dict):
            loaders = list(loaders.values())
        loaders = loaders if isinstance(loaders, list) else [loaders]
        for loader, most in zip(loaders, trainer.num_val_batches, strict=False):
            for batch in islice(loader or [], None if isinf(most) else int(most)):
                moved = strategy.batch_to_device(plugin.convert_input(batch), dataloader_idx=0)
                probabilities, targets = predict(module, moved)
                parts.append((probabilities.float().cpu(), targets.long().cpu()))
    if trainer.world_size > 1:
        ranks: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(ranks, parts)
        parts = [part for rank in ranks for part in rank]
    if not parts:
        return None
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
