"""Which state in a checkpoint is a callback's."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import Callback, Trainer


def key_in(callback: Callback, trainer: Trainer, keys: Iterable[str]) -> str | None:
    """Return the key under which a checkpoint holds a callback's state.

    It is the callback's own `state_key`; or, so that a resumed run may have other settings, the only key of
    its class that belongs to no callback of the Trainer.

    Args:
        callback: One of the Trainer's.
        trainer: About to resume.
        keys: Those of the checkpoint.
    """
    keys = list(keys)
    if callback.state_key in keys:
        return callback.state_key
    claimed = {other.state_key for other in trainer.callbacks}  # type: ignore[attr-defined]
    name = type(callback).__qualname__
    free = [key for key in keys if key.partition("{")[0] == name and key not in claimed]
    return free[0] if len(free) == 1 else None
