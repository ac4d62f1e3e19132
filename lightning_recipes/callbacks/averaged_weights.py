"""What the averages of weights share: when they are in the module, and how they are saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from ..averaging import WeightAverage
from ..utils.errors import UserError
from ..utils.interrupts import uninterrupted
from ..utils.resuming import key_in
from ..utils.tensors import load_tensors
from .kept_average import KeptAverage, averages_of, begin_serving, end_averages, end_serving, serving
from .validation import validate_quietly

_SAVED = "weight_averages"  # our part of a full checkpoint


class AveragedWeights(KeptAverage, ABC):
    """Keeps an average of the weights; a subclass says when it is updated and by how much.

    Once there is an average, validation runs on it and every checkpoint holds it as its `state_dict`; a full
    checkpoint holds the raw weights beside it. After the fit the module holds it, so that `validate`, `test`
    and `predict` measure what was validated. Training itself goes on from the raw weights, and so does a
    second fit. Of several averages in one Trainer the first one that has begun is validated and saved so; the
    others are there to be asked, and are saved beside it.

    Args:
        device: Where the average is kept, such as `cpu`; by default beside the weights.
        validate_raw: Validate the raw weights too, and log their metrics as `NAME_raw`.
    """

    def __init__(self, *, device: str | None = None, validate_raw: bool = False) -> None:
        if device is not None:
            try:
                known = torch.device(device).type != "meta"
            except RuntimeError:
                known = False
            if not known:
                raise UserError(f"`device` must be a device of torch's, such as `cpu`, got {device!r}.")
        super().__init__(device)
        self.validate_raw = validate_raw
        self._stepped = 0
        self._validating = False
        self._raw_metrics: dict[str, Tensor] = {}

    # What a subclass says

    @abstractmethod
    def should_update(self, trainer: Trainer, before: int, after: int) -> bool:
        """Return whether to update at the end of a batch.

        Args:
            trainer: Its `current_epoch` and `is_last_batch` may matter.
            before: Optimizer steps of the run before this batch.
            after: Optimizer steps after it; the difference is above 1 with several optimizers.
        """

    @abstractmethod
    def update_weight(self) -> float:
        """Return by which share of the distance the average now moves to the weights."""

    # The way through a fit

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew for a fit, from the raw weights where this callback left an average in the module."""
        end_serving(trainer)
        if self._average is not None:
            self._average.settle()
        if stage != "fit":
            return
        if self.device is not None:
            try:
                torch.empty(0, device=self.device)
            except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
                reason = str(error).strip().splitlines()[0]
                raise UserError(f"`device: {self.device}` is not there: {reason} Take `cpu`.") from error
        if self._average is not None and self._average.module is pl_module:
            self._average.take_back()
        self._average, self._module, self._loaded = None, pl_module, None
        self.n_averaged = self.steps = self._stepped = 0
        self._validating = False
        strategy = type(trainer.strategy).__name__
        if strategy in ("FSDPStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy"):
            raise UserError(
                f"{type(self).__name__} averages whole weights and the shards of DTensors; {strategy} has "
                "neither. Take `ddp` or `ModelParallelStrategy`."
            )

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what a resumed fit needs until the module is in its place."""
        if trainer.state.fn != "fit" or _SAVED not in checkpoint:
            return
        self._loaded = checkpoint[_SAVED]
        states = checkpoint.get("callbacks", {})
        key = key_in(self, trainer, states)
        if key is not None:
            self.load_state_dict(states[key])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the averages of a resumed fit, and begin to count the optimizers' steps."""
        self._peers = averages_of(trainer)
        self.steps = self.steps or trainer.global_step  # of a run that began without this callback
        if self._loaded is not None:
            loaded = self._loaded
            for peer in self._peers:  # all of them, before the raw weights take the average's place
                peer._adopt(trainer, loaded["averages"])
            load_tensors(pl_module, loaded["raw"])
        for optimizer in trainer.optimizers:
            self._handles.append(optimizer.register_step_post_hook(self._count))
        begin_serving(trainer)

    def _count(self, optimizer: Optimizer, *_: Any) -> None:  # noqa: ANN401 - the arguments of its step
        skipped = getattr(optimizer, "found_inf", None)  # a fused optimizer leaves out a step itself
        self._stepped += 0 if skipped is not None and bool(skipped) else 1

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Update the average where the subclass says so: before a validation that follows this batch."""
        before, self.steps, self._stepped = self.steps, self.steps + self._stepped, 0
        if self.should_update(trainer, before, self.steps):
            self.update(pl_module)

    def update(self, pl_module: LightningModule) -> None:
        """Take the module's weights into the average; the first time, as its beginning."""
        with uninterrupted():
            if self._average is None:
                self._average = WeightAverage(pl_module, device=self.device)
            else:
                self._average.update(self.update_weight())
            self.n_averaged += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or serving(trainer) is not self:
            return
        self._raw_metrics = validate_quietly(trainer) if self.validate_raw else {}
        self.prepare(trainer, pl_module)
        self._existing().exchange()
        self._validating = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the raw weights came to."""
        if self._validating:
            pl_module.log_dict({f"{name}_raw": value for name, value in self._raw_metrics.items()})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the raw weights back."""
        self._take_out()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        end_averages(trainer)
        if self._average is None and self.steps:
            rank_zero_warn(f"{type(self).__name__} made no average in {self.steps} steps: {self.beginning}.")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the raw weights back, whatever was going on."""
        if trainer.state.fn == "fit":
            self._take_out()
            self._unhook()
            if self._average is not None:
                self._average.take_back()

    def _take_out(self) -> None:
        if self._validating:
            self._existing().exchange()
            self._validating = False

    # What is saved

    def state_dict(self) -> dict[str, Any]:
        """Return the counts; the tensors are saved beside them by `on_save_checkpoint`."""
        return {"n_averaged": self.n_averaged, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counts of a checkpoint."""
        self.n_averaged, self.steps = state_dict["n_averaged"], state_dict["steps"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the raw weights, whose place the average has taken, or an average that has not taken it."""
        if self._average is None:
            return
        saved = checkpoint.setdefault(_SAVED, {"raw": {}, "averages": {}})
        if serving(trainer) is self:
            saved["raw"] = self._raw(pl_module)
            saved["averages"][self.state_key] = self._average.widened()
        else:
            saved["averages"][self.state_key] = self._average.average()
