"""Strategies under which the weights have lost their shape."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer

from ..utils.errors import UserError


def refuse_flat_shards(callback: Callback, trainer: Trainer) -> None:
    """Refuse a strategy that flattens parameters into shards without rows and columns.

    Raises:
        UserError: The strategy is one of FSDP's first version, DeepSpeed's or XLA's.
    """
    strategy = type(trainer.strategy).__name__
    if strategy in ("FSDPStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy"):
        raise UserError(
            f"{type(callback).__name__} needs weights with their rows and columns; {strategy} has flat "
            "shards. Take `ddp` or `ModelParallelStrategy`."
        )
