"""The next training step of a module, run within a context."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from lightning.pytorch import LightningModule


def around_next_step(
    module: LightningModule, context: Callable[[], AbstractContextManager[Any]]
) -> Callable[[], None]:
    """Have the module's next training step, and no later one, run within `context()`.

    Where Lightning optimizes, the backward pass is not part of the step. The module is as it was as soon as
    the step has begun; several can be stacked.

    Args:
        module: Its `training_step` is hidden by an attribute until it is called.
        context: Is entered when the step begins.

    Returns:
        A function that takes it back, when the step never came.
    """
    space = vars(module)
    before = space.get("training_step")
    step = module.training_step
    waiting = True

    def remove() -> None:
        nonlocal waiting
        waiting = False
        if space.get("training_step") is once:
            if before is None:
                del space["training_step"]
            else:
                space["training_step"] = before

    @wraps(step)
    def once(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the step takes and returns
        if not waiting:
            return step(*args, **kwargs)
        remove()
        with context():
            return step(*args, **kwargs)

    once.__wrapped__ = getattr(step, "__wrapped__", step)  # Lightning reads its arguments
    space["training_step"] = once
    return remove
