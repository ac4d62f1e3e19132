"""Early stopping that leaves the best weights."""

from __future__ import annotations

from math import isfinite, nan
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from ..utils.errors import UserError, did_you_mean
from ..utils.monitor import fresh_metrics, is_better
from ..utils.resuming import key_in
from ..utils.tensors import copies_of, load_copies, part_of, tensors_of, whole_copies
from .kept_average import served_weights, settle_averages

Unit = Literal["checks", "epochs", "steps"]
_STATE = (
    "monitor",
    "best_score",
    "best_epoch",
    "best_step",
    "stop_reason",
    "wait_count",
    "stopped_epoch",
    "_checks",
    "_since",
    "_step_seen",
    "_epochs",
)
_SAVED = "best_weights"  # our part of a full checkpoint


class EarlyStoppingWithRestore(EarlyStopping):
    """Stop when a metric no longer improves, and leave the best weights in the module when the fit ends.

    Only values that were just measured count: a metric of every third epoch is judged every third epoch. A
    stop is taken back when the metric recovers before `min_epochs` or `min_steps` let the run end. The best
    weights are those that were validated (an average's, where there is one); checkpoints carry them, so that
    a resumed run can still restore them, and a resumed run obeys the settings that it is given now.

    Args:
        monitor: Name of the metric.
        mode: Whether the best is the `min` or the `max`.
        patience: How long to wait for something better; None never stops for that, and restores the best.
        unit: Of `patience` and `warmup`: `checks` (values of the metric), `epochs` or optimizer `steps`.
        min_delta: Improvements up to this count as none.
        relative: Take `min_delta` as a fraction of the best value.
        warmup: How long to look away at first: until then no value counts, and none becomes the best.
        every_n_steps: Look also at what `training_step` logs, every so many optimizer steps.
        target: Stop once the metric is as good as this.
        divergence: Stop once the metric is worse than this.
        check_finite: Stop once the metric is NaN or infinite.
        restore: Put the best weights back when the fit ends, also when it ends by itself.
        verbose: Say when and why the run stops.

    Attributes:
        best_score: The best value, or None before the first.
        best_epoch: The epoch in which it was measured, from 0.
        best_step: The optimizer steps made until then.
        stop_reason: `patience`, `target`, `divergence` or `non-finite`; None when the run ended by itself.

    Raises:
        UserError: An argument out of its bounds, or (in the fit) a metric that never comes.

    Source: Prechelt, "Early Stopping – But When?", 1998.

    >>> EarlyStoppingWithRestore("val/acc", mode="max", patience=3).best_score is None
    True
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        *,
        mode: Literal["min", "max"] = "min",
        patience: int | None = 5,
        unit: Unit = "checks",
        min_delta: float = 0.0,
        relative: bool = False,
        warmup: int = 0,
        every_n_steps: int | None = None,
        target: float | None = None,
        divergence: float | None = None,
        check_finite: bool = True,
        restore: bool = True,
        verbose: bool = True,
    ) -> None:
        if mode not in ("min", "max"):
            raise UserError(f"`mode` must be `min` or `max`, got {mode!r}.")
        if patience is not None and patience < 1:
            raise UserError(f"`patience` must be at least 1, got {patience}. To never stop, set it to null.")
        if unit not in ("checks", "epochs", "steps"):
            raise UserError(f"`unit` must be checks, epochs or steps, got {unit!r}.")
        for name, value in (("min_delta", min_delta), ("warmup", warmup)):
            if value < 0:
                raise UserError(f"`{name}` must be at least 0, got {value}.")
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"`every_n_steps` must be at least 1, got {every_n_steps}.")
        super().__init__(
            monitor,
            patience=1 if patience is None else patience,
            mode=mode,
            min_delta=min_delta,
            check_finite=check_finite,
            verbose=verbose,
        )
        self.min_delta = min_delta  # Lightning's has a sign
        self.patience = patience  # type: ignore[assignment]
        self.unit, self.relative, self.warmup, self.every_n_steps = unit, relative, warmup, every_n_steps
        self.target, self.divergence, self.restore = target, divergence, restore
        self._reset()

    def _reset(self) -> None:
        self.best_score: float | None = None  # type: ignore[assignment]
        self.best_epoch: int | None = None
        self.best_step: int | None = None
        self.stop_reason: str | None = None
        self.wait_count = 0  # fresh values since the best
        self.stopped_epoch = 0
        self._checks = 0  # fresh values seen at all
        self._since: dict[str, int] = {"checks": 0, "epochs": 0, "steps": 0}  # where waiting began
        self._best: dict[str, Tensor] | None = None
        self._asked = False  # whether it was this callback that asked to stop
        self._step_seen = self._epochs = 0

    @property
    def state_key(self) -> str:
        """Apart for all settings that say when to stop."""
        return self._generate_state_key(
            monitor=self.monitor,
            mode=self.mode,
            patience=self.patience,
            unit=self.unit,
            min_delta=self.min_delta,
            relative=self.relative,
            warmup=self.warmup,
            target=self.target,
            divergence=self.divergence,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew for a fit; a resumed one then loads its state."""
        if stage == "fit":
            self._reset()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget why a run that is resumed had stopped."""
        self.stop_reason = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Look at what the step logged, where steps are looked at."""
        before, self._step_seen = self._step_seen, trainer.global_step
        if self.every_n_steps and self._step_seen // self.every_n_steps > before // self.every_n_steps:
            self._check(trainer, pl_module, fresh_metrics(trainer, on_step=True))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what this validation measured."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check(trainer, pl_module, fresh_metrics(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what this epoch of training measured."""
        of_steps = {} if self.every_n_steps else fresh_metrics(trainer, on_step=True)
        self._check(trainer, pl_module, {**of_steps, **fresh_metrics(trainer)})
        self._epochs += 1
        if self._checks == 0:
            self._look_for(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the best weights back."""
        if self._checks == 0 and self._epochs >= (trainer.check_val_every_n_epoch or 1):
            raise self._missing(trainer)
        if self._best is None:
            return
        if self.stop_reason is not None and self.verbose:
            rank_zero_info(
                f"Stopped in epoch {self.stopped_epoch} ({self.stop_reason}): the best {self.monitor} is "
                f"{self.best_score:.5g}, of epoch {self.best_epoch}, whose weights "
                f"{'are restored' if self.restore else 'are in its checkpoint, if there is one'}."
            )
        if self.restore:
            settle_averages(trainer)
            load_copies(pl_module, self._best)

    def _check(self, trainer: Trainer, pl_module: LightningModule, metrics: dict[str, Tensor]) -> None:
        if self.monitor not in metrics:
            return
        measured = metrics[self.monitor].detach().float().to(trainer.strategy.root_device)
        value = float(trainer.strategy.reduce(measured, reduce_op="mean"))  # all ranks decide alike
        self._checks += 1
        now = {"checks": self._checks, "epochs": trainer.current_epoch + 1, "steps": trainer.global_step}
        reason = None
        if self.check_finite and not isfinite(value):
            reason = "non-finite"
        elif now[self.unit] <= self.warmup:
            self._since = now
        else:
            reason = self._judge(trainer, pl_module, value, now)
        met = trainer.current_epoch + 1 >= (trainer.fit_loop.min_epochs or 0)
        met &= trainer.global_step >= (trainer.fit_loop.min_steps or 0)
        if reason is not None and met:
            self._asked |= not trainer.should_stop
            self.stop_reason, self.stopped_epoch, trainer.should_stop = reason, trainer.current_epoch, True
        elif self._asked:  # it has recovered before the run could end
            self.stop_reason, self._asked, trainer.should_stop = None, False, False

    def _judge(
        self, trainer: Trainer, pl_module: LightningModule, value: float, now: dict[str, int]
    ) -> str | None:
        """Return why to stop, or None."""
        best = nan if self.best_score is None else self.best_score
        if is_better(value, best, mode=self.mode, min_delta=self.min_delta, relative=self.relative):
            self.best_score, self.best_epoch, self.best_step = (
                value,
                trainer.current_epoch,
                trainer.global_step,
            )
            self._since, self.wait_count = now, 0
            if self.restore:
                with served_weights(trainer):
                    self._best = copies_of(pl_module)
        else:
            self.wait_count += 1
        if self.target is not None and not is_better(self.target, value, mode=self.mode):
            return "target"
        if self.divergence is not None and is_better(self.divergence, value, mode=self.mode):
            return "divergence"
        waited = now[self.unit] - self._since[self.unit]
        return "patience" if self.patience is not None and waited >= self.patience else None

    def _look_for(self, trainer: Trainer) -> None:
        """Warn after the first epoch without the metric, and raise when it has had every chance."""
        chances = self._epochs // (trainer.check_val_every_n_epoch or 1)
        if chances > max(0 if self.unit == "steps" else self.patience or 0, 3):
            raise self._missing(trainer)
        if chances == 1:
            rank_zero_warn(str(self._missing(trainer)))

    def _missing(self, trainer: Trainer) -> UserError:
        known = sorted(trainer.callback_metrics)
        return UserError(
            f"The metric `{self.monitor}` has not come in {self._epochs} epochs; these have: "
            f"{', '.join(known) or 'none'}.{did_you_mean(self.monitor, known)} Set `monitor` to one of them, "
            f"or `self.log({self.monitor!r}, …)` in the module."
        )

    # What is saved

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured, and none of the settings."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, under the settings of this run."""
        for name in _STATE:
            setattr(self, name, state_dict[name])

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the best weights."""
        if self._best is not None:
            checkpoint.setdefault(_SAVED, {})[self.state_key] = whole_copies(pl_module, self._best)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the best weights; and the rest, from a run with other settings for the same metric."""
        states = checkpoint.get("callbacks", {})
        key = key_in(self, trainer, states)
        if trainer.state.fn != "fit" or key is None or states[key]["monitor"] != self.monitor:
            return
        self.load_state_dict(states[key])
        if key in checkpoint.get(_SAVED, {}):
            own = tensors_of(pl_module)
            self._best = {n: part_of(t, own[n]).cpu() for n, t in checkpoint[_SAVED][key].items() if n in own}
