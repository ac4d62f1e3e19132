"""Short runs of copies of a module, under the settings of its trainer, that leave no trace."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer

from ..utils.rng import preserved_generators, seed_generators
from ..utils.silence import kept_signals, quiet
from .batches import Served, size_of, take
from .ending import Ending

Step = Callable[[LightningModule, Callable[[Any], Any], Any, int], Any]
"""What a trial does with a batch: `(module, the module's own step, batch, number) -> loss`."""
NO_TIME_LIMIT = inf


class CannotTry(Exception):
    """A trial is impossible here; the message says why."""


@dataclass
class Outcome:
    """What came of a trial.

    Args:
        module: The copy, as the trial left it.
        steps: How many batches it was given.
        error: What the module's own code raised, if it did.
        note: What was done otherwise than asked for, such as a smaller batch.
    """

    module: LightningModule
    steps: int
    error: Exception | None = None
    note: str = ""


class Trials:
    """Runs copies of a module that is being fitted, each from the state in which the module is now.

    A copy has the module's weights, buffers, modes and optimizers, and a trainer of its own with the
    precision, the clipping and the device of the real one, on one device. It logs nothing, and skips the
    hooks that set a run up or end it, for they have been called already.

    Args:
        trainer: The trainer of the run, within it.

    Raises:
        CannotTry: The weights are sharded.
    """

    def __init__(self, trainer: Trainer) -> None:
        module = trainer.lightning_module
        if any(type(p).__name__ == "DTensor" or hasattr(p, "_handle") for p in module.parameters()):
            raise CannotTry("the weights are sharded")
        self.trainer, self.module = trainer, module
        self.note = ""

    def run(
        self,
        batches: Sequence[Any],
        steps: int,
        *,
        step: Step | None = None,
        optimizer: str = "own",
        prepare: Callable[[LightningModule], None] | None = None,
        after: Callable[[LightningModule, int], bool | None] | None = None,
        deadline: float = NO_TIME_LIMIT,
        seed: int = 0,
    ) -> Outcome:
        """Train a copy on `batches`, over and over, for so many steps.

        Args:
            batches: As a training step is given them.
            steps: At most so many batches.
            step: Done instead of the module's own step; what it returns is the loss.
            optimizer: `own` at its peak rate, without schedule; `adam` at 1e-3; or `held`, which does not
                step.
            prepare: Changes the copy before the run.
            after: Called after each step; true ends the trial.
            deadline: Of `time.monotonic()`, after which no step is begun.
            seed: Of all generators, which are put back afterwards.

        Raises:
            CannotTry: The module cannot be copied.
        """
        while True:
            outcome = self._run(batches, steps, step, optimizer, prepare, after, deadline, seed)
            size = size_of(batches[0])
            if outcome.error is None or "out of memory" not in str(outcome.error) or size < 2:
                return outcome
            self.note = f"with batches of {size // 2}, for want of memory"
            batches = [take(batch, slice(size // 2)) for batch in batches]
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def datamodule(self) -> Any:  # noqa: ANN401 - any, or none
        """Return the run's datamodule; None without one."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def _run(
        self,
        batches: Sequence[Any],
        steps: int,
        step: Step | None,
        optimizer: str,
        prepare: Callable[[LightningModule], None] | None,
        after: Callable[[LightningModule, int], bool | None] | None,
        deadline: float,
        seed: int,
    ) -> Outcome:
        error = None
        with preserved_generators(), quiet(), kept_signals():
            module, optimizers = self._copy()
            seed_generators(seed)
            ending = Ending(steps, deadline, after, self.datamodule())
            module.__dict__.update(_trial_step=step, _trial_optimizers=_made(optimizers, optimizer, module))
            if prepare is not None:
                prepare(module)
            real = self.trainer.num_training_batches
            length = max(int(real), steps) if 0 < real < inf else steps  # all within the first epoch
            trainer = self._trainer(ending, scaled=optimizer != "held")
            try:
                trainer.fit(module, Served(batches, length))
            except SystemExit as left:  # how Lightning leaves after Ctrl-C
                raise KeyboardInterrupt from left
            except Exception as raised:  # whatever somebody else's code raises is evidence
                error = raised
            finally:
                module.__dict__.update(_trial_step=None)
        return Outcome(module, ending.steps, error, self.note)

    def _trainer(self, ending: Callback, *, scaled: bool) -> Trainer:
        real = self.trainer
        plugin: Any = real.precision_plugin
        if type(plugin) is not Precision:
            plugin = copy.deepcopy(plugin)
            if not scaled and getattr(plugin, "scaler", None) is not None:
                plugin.scaler = None  # its first scale may well overflow, which says nothing
        device = real.strategy.root_device
        return Trainer(
            strategy=SingleDeviceStrategy(device=device),
            accelerator="cpu" if device.type == "cpu" else "gpu" if device.type == "cuda" else "auto",
            devices=1,
            plugins=None if type(plugin) is Precision else [plugin],
            gradient_clip_val=real.gradient_clip_val,
            gradient_clip_algorithm=real.gradient_clip_algorithm,
            max_epochs=real.max_epochs if real.max_epochs and real.max_epochs > 0 else 1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            callbacks=[ending],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def _copy(self) -> tuple[LightningModule, list[Optimizer]]:
        memo: dict[int, Any] = {id(self.trainer): self.trainer}
        for part in self.module.modules():  # torch copies no tensor that is in the midst of a graph
            for value in vars(part).values():
                if isinstance(value, Tensor) and not value.is_leaf:
                    memo[id(value)] = value.detach().clone()
        try:
            module, optimizers = copy.deepcopy((self.module, list(self.trainer.optimizers)), memo)
        except Exception as raised:  # of a `__deepcopy__`, or of what cannot be copied
            raise CannotTry(f"the module cannot be copied: {raised}") from raised
        module.__class__ = _on_trial(type(self.module))
        for parameter in module.parameters():
            parameter.grad = None
        return module, optimizers


def _on_trial(kind: type[LightningModule]) -> type[LightningModule]:
    """Return a subclass whose hooks of beginning and end do nothing, and whose step the trial may replace."""

    @functools.wraps(kind.training_step)
    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        step = self._trial_step
        if step is None:
            return kind.training_step(self, *args, **kwargs)
        given = [*args, *kwargs.values()]
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx

        def own(batch: Any) -> Any:  # noqa: ANN401
            if "batch" in kwargs:
                return kind.training_step(self, **{**kwargs, "batch": batch})
            return kind.training_step(self, batch, *args[1:], **kwargs)

        return step(self, own, kwargs.get("batch", given[0]), number)

    # a name of its own, so that whoever finds classes by their names finds one
    return type(f"_{kind.__name__}", (_OnTrial, kind), {"training_step": training_step})


class _OnTrial(LightningModule):
    """What a copy does differently from the module."""

    _trial_optimizers: list[Optimizer]

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        return self._trial_optimizers or None

    def configure_callbacks(self) -> list[Callback]:
        return []

    def transfer_batch_to_device(self, batch: Any, *_: Any) -> Any:  # noqa: ANN401
        return batch

    on_before_batch_transfer = transfer_batch_to_device  # type: ignore[assignment]
    on_after_batch_transfer = transfer_batch_to_device  # type: ignore[assignment]

    def _nothing(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        pass

    log = log_dict = print = _nothing
    prepare_data = setup = configure_model = on_fit_start = on_train_start = _nothing
    on_train_epoch_start = on_train_epoch_end = on_train_end = on_fit_end = teardown = _nothing

    @property
    def logger(self) -> Any:  # noqa: ANN401
        return DummyLogger()

    @property
    def loggers(self) -> list[Any]:
        return [DummyLogger()]


def peak_rate(group: dict[str, Any]) -> float:
    """Return the rate of a parameter group without its schedule.

    >>> peak_rate({"lr": 0.0, "initial_lr": 0.1})
    0.1
    """
    return float(group.get("max_lr", group.get("initial_lr", group["lr"])))


def _made(optimizers: list[Optimizer], kind: str, module: LightningModule) -> list[Optimizer]:
    if kind == "adam":
        if len(optimizers) > 1:
            return [torch.optim.Adam([p for g in o.param_groups for p in g["params"]]) for o in optimizers]
        trainable = [p for p in module.parameters() if p.requires_grad]
        return [torch.optim.Adam(trainable)] if trainable else optimizers
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = peak_rate(group)
        if kind == "held":
            optimizer.step = _only_closure  # type: ignore[method-assign]
    return optimizers


def loss_scale(module: LightningModule) -> float:
    """Return by what a gradient scaler multiplies the loss of a copy that is on trial; 1 without one."""
    scaler = getattr(module.trainer.precision_plugin, "scaler", None)
    return float(scaler.get_scale()) if scaler is not None and scaler.is_enabled() else 1.0


def optimizers_of(module: LightningModule) -> list[Optimizer]:
    """Return the optimizers of a copy that is on trial."""
    optimizers: list[Optimizer] = vars(module)["_trial_optimizers"]
    return optimizers


def _only_closure(closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
    return closure() if closure is not None else None
