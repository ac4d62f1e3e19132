"""The exponential moving average of the weights."""

from __future__ import annotations

from math import inf, log
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from ..averaging import decay_of_half_life, warmed_decay
from ..utils.errors import UserError
from ..utils.progress import steps_of_run
from .averaged_weights import AveragedWeights

DECAY = 0.9998  # of timm's and most recent training recipes
SHARE = 0.05  # of the run's steps: the longest half-life by default


class EMA(AveragedWeights):
    r"""Keep an exponential moving average of the weights, and validate, save and leave it in the module.

    .. math:: \bar w \leftarrow d \bar w + (1 - d) w, \qquad d = \min(1 - (1 + s)^{-2/3},\ \text{decay})

    after s updates; the first one copies the weights. Once there is an average, validation runs on it, and so
    do `test` and `predict` after the fit; checkpoints hold it as their weights, with the raw ones beside it.
    What is counted are the optimizers' own steps: one that a gradient scaler leaves out is none.

    Args:
        decay: How much of the average each update keeps, in [0, 1). By default 0.9998, but with a half-life
            of at most 5 % of the run's steps, so that a short run has an average worth having.
        warmup: Begin with a short memory, as above; otherwise every update but the first uses `decay`.
        every_n_steps: Optimizer steps between updates.
        start_step: Optimizer steps before the average begins.
        start_epoch: Epochs before the average begins.
        device: Where the average is kept, such as `cpu` to save GPU memory; by default beside the weights.
        validate_raw: Validate the raw weights too, and log their metrics as `NAME_raw`.

    Raises:
        UserError: An argument out of its bounds.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.

    >>> EMA(0.999, every_n_steps=4).n_averaged
    0
    """

    def __init__(
        self,
        decay: float | None = None,
        *,
        warmup: bool = True,
        every_n_steps: int = 1,
        start_step: int = 0,
        start_epoch: int = 0,
        device: str | None = None,
        validate_raw: bool = False,
    ) -> None:
        super().__init__(device=device, validate_raw=validate_raw)
        if decay is not None and not 0 <= decay < 1:
            raise UserError(
                f"`decay` must lie in [0, 1), got {decay}. 0.999 looks back over about 1000 updates."
            )
        if every_n_steps < 1:
            raise UserError(f"`every_n_steps` must be at least 1, got {every_n_steps}.")
        for name, value in (("start_step", start_step), ("start_epoch", start_epoch)):
            if value < 0:
                raise UserError(f"`{name}` must be at least 0, got {value}.")
        self.decay, self.warmup, self.every_n_steps = decay, warmup, every_n_steps
        self.start_step, self.start_epoch = start_step, start_epoch
        self._decay = 0.0

    @property
    def state_key(self) -> str:
        """Apart for each way to average."""
        return self._generate_state_key(
            decay=self.decay,
            warmup=self.warmup,
            every_n_steps=self.every_n_steps,
            start_step=self.start_step,
            start_epoch=self.start_epoch,
        )

    @property
    def beginning(self) -> str:
        """When there will be an average."""
        return (
            f"it begins at step {self.start_step + self.every_n_steps}"
            f"{f', not before epoch {self.start_epoch}' if self.start_epoch else ''}"
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew for a fit."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._decay = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the decay that suits the length of the run."""
        super().on_train_start(trainer, pl_module)
        total = steps_of_run(trainer)
        if self.decay is not None:
            self._decay = self.decay
        elif total is not None or not self._decay:  # otherwise the checkpoint's, found at an epoch's end
            self._decay = self._suited(total)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the decay again, where only now it is known how long an epoch is."""
        epochs = trainer.max_epochs
        if self.decay is None and epochs and epochs > 0 and steps_of_run(trainer) is None:
            self._decay = self._suited(epochs * self.steps // (trainer.current_epoch + 1))

    def _suited(self, total_steps: int | None) -> float:
        """Return the decay of an update: 0.9998 a step, or that of the longest half-life if it is less."""
        longest = inf if total_steps is None else max(SHARE * total_steps, SHARE)
        half_life = min(log(0.5) / log(DECAY), longest) / self.every_n_steps  # updates
        return decay_of_half_life(half_life)

    def should_update(self, trainer: Trainer, before: int, after: int) -> bool:
        """Return whether these steps have crossed a multiple of `every_n_steps`."""
        if trainer.current_epoch < self.start_epoch or after <= self.start_step:
            return False
        counted = max(before - self.start_step, 0) // self.every_n_steps
        return (after - self.start_step) // self.every_n_steps > counted

    def update_weight(self) -> float:
        """Return 1 - d."""
        return 1 - (warmed_decay(self.n_averaged, self._decay) if self.warmup else self._decay)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, and the decay of this run."""
        return {**super().state_dict(), "decay": self._decay}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        super().load_state_dict(state_dict)
        self._decay = state_dict["decay"]
