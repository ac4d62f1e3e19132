"""Stochastic weight averaging."""

from __future__ import annotations

from itertools import islice
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.nn.modules.batchnorm import _NormBase

from ..batch_norm import refreshing, tracking_norms
from ..schedules import cosine, linear
from ..utils.errors import UserError
from ..utils.loaders import undisturbed
from ..utils.progress import fraction_done
from .averaged_weights import AveragedWeights
from .rates import Rates, current_rates, in_proportion, initial_rates, largest, set_rates

Anneal = Literal["cosine", "linear", "none"]
_ANNEALS = {"cosine": cosine, "linear": linear}
_ANNEALING = 0.2  # of the averaging phase
_ROUNDING = 1e-9  # of a fraction of the run


class SWA(AveragedWeights):
    r"""Average the weights of the last part of the run equally, and validate, save and leave the average.

    .. math:: \bar w \leftarrow \bar w + \frac{w - \bar w}{n + 1}

    at the end of each epoch, or every so many steps, from `start` on, under a learning rate that stays high
    enough to move. The statistics of BatchNorm are measured anew, for the average, by forward passes over
    training batches before it is validated or saved. The average so far is what a fit leaves, however it was
    stopped; only an exception or Ctrl-C leaves the raw weights.

    Args:
        start: When to begin: below 1, a fraction of the run (of its epochs, where the training loader has no
            length); else the epochs before it (the optimizer steps, where `every` is a number of steps).
        every: `epoch`, or a number of optimizer steps.
        lr: The learning rate while averaging, of the group with the largest; the others keep their ratio to
            it. By default half of the initial one.
        anneal: How the rate gets there, over the first fifth of the averaging: `cosine` or `linear`; `none`
            leaves the rate to the module's own schedule.
        refresh_batches: Most training batches that measure BatchNorm's statistics. With 0 the statistics are
            averaged like weights.
        device: Where the average is kept, such as `cpu` to save GPU memory; by default beside the weights.
        validate_raw: Validate the raw weights too, and log their metrics as `NAME_raw`.

    Raises:
        UserError: An argument out of its bounds, or a fraction as `start` of a run without an end.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018.

    >>> SWA(0.5, every=100).n_averaged
    0
    """

    def __init__(
        self,
        start: float = 0.75,
        *,
        every: int | Literal["epoch"] = "epoch",
        lr: float | None = None,
        anneal: Anneal = "cosine",
        refresh_batches: int = 100,
        device: str | None = None,
        validate_raw: bool = False,
    ) -> None:
        super().__init__(device=device, validate_raw=validate_raw)
        if start < 0 or (start >= 1 and start != int(start)):
            raise UserError(
                f"`start` must be a fraction of the run in [0, 1) or a whole number, got {start}."
            )
        if every != "epoch" and not (isinstance(every, int) and every >= 1):
            raise UserError(f"`every` must be `epoch` or a number of steps from 1 on, got {every!r}.")
        if lr is not None and lr <= 0:
            raise UserError(f"`lr` must be above 0, got {lr}. To leave the rate alone, set `anneal` to none.")
        if anneal not in (*_ANNEALS, "none"):
            raise UserError(f"`anneal` must be cosine, linear or none, got {anneal!r}.")
        if refresh_batches < 0:
            raise UserError(f"`refresh_batches` must be at least 0, got {refresh_batches}.")
        self.start, self.every, self.lr, self.anneal = start, every, lr, anneal
        self.refresh_batches = refresh_batches
        self._reset()

    def _reset(self) -> None:
        self._initial: Rates = []  # rates when the run began
        self._from: Rates = []  # and when the averaging began, at this fraction of the run
        self._begun: float | None = None
        self._done: float | None = None  # fraction of the run before this batch
        self._before = 0  # optimizer steps before it
        self._epoch_done = -1
        self._norms: list[_NormBase] = []
        self._measures, self._looked = True, False
        self._stale = False  # whether BatchNorm's statistics are of earlier weights

    @property
    def state_key(self) -> str:
        """Apart for each way to average."""
        return self._generate_state_key(start=self.start, every=self.every, lr=self.lr, anneal=self.anneal)

    @property
    def beginning(self) -> str:
        """When there will be an average."""
        if self.start < 1:
            return f"it begins after {self.start:.0%} of the run"
        return f"it begins after {int(self.start)} {'epochs' if self.every == 'epoch' else 'steps'}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew for a fit."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._reset()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the rates of the run, and its length."""
        super().on_train_start(trainer, pl_module)
        if self.start < 1 and fraction_done(trainer) is None:
            raise UserError(
                f"`start={self.start}` is a fraction of a run that has no end. Set `max_epochs` or "
                "`max_steps`, or give `start` in epochs."
            )
        self._norms, self._looked = tracking_norms(pl_module), False
        self._measures = self._can_forward(pl_module)
        if self._norms and self.refresh_batches and not self._measures:
            rank_zero_warn(
                f"{type(pl_module).__name__} has BatchNorm but no `forward`: its statistics are averaged "
                "instead of measured anew. Give it a `forward`, or override `SWA.forward_batch`."
            )
        self._initial = self._initial or initial_rates(trainer)

    def _can_forward(self, pl_module: LightningModule) -> bool:
        return type(self).forward_batch is not SWA.forward_batch or is_overridden("forward", pl_module)

    def _averaging(self, trainer: Trainer) -> bool:
        """Return whether this batch, or the one just done, is one of those averaged over."""
        if self.start >= 1:
            return (trainer.current_epoch if self.every == "epoch" else self._before) >= self.start
        return self._done is not None and self._done >= self.start - _ROUNDING

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Set the learning rate, once averaging has begun."""
        if batch_idx == 0 or not self._looked:  # others freeze and thaw layers when an epoch begins
            self._norms, self._looked = tracking_norms(pl_module), True
        self._done, self._before = fraction_done(trainer), self.steps
        if self.anneal == "none" or not self._averaging(trainer):
            return
        target = in_proportion(self._initial, largest(self._initial) / 2 if self.lr is None else self.lr)
        done = 1.0 if self._done is None else self._done  # a run without an end anneals at once
        if self._begun is None:
            self._begun, self._from = done, current_rates(trainer)
            rank_zero_info(
                f"SWA averages from step {self.steps} on: the learning rate goes from "
                f"{largest(self._from):.3g} to {largest(target):.3g}."
            )
        whole = _ANNEALING * (1 - self._begun)
        rest = _ANNEALS[self.anneal](min((done - self._begun) / whole, 1.0) if whole > 0 else 1.0)
        rates = [
            [end + (first - end) * rest for first, end in zip(*pair, strict=True)]
            for pair in zip(self._from, target, strict=True)
        ]
        set_rates(trainer, rates)

    def should_update(self, trainer: Trainer, before: int, after: int) -> bool:
        """Return whether an epoch has ended, or these steps have crossed a multiple of `every`."""
        if not self._averaging(trainer):
            return False
        if self.every == "epoch":
            if not trainer.is_last_batch:
                return False
            self._epoch_done = trainer.current_epoch
            return True
        assert isinstance(self.every, int)
        return after // self.every > before // self.every

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average an epoch that `max_steps` or a stop has cut short."""
        cut = self.every == "epoch" and self._epoch_done != trainer.current_epoch
        if cut and self._averaging(trainer):
            self._epoch_done = trainer.current_epoch
            self.update(pl_module)

    def update(self, pl_module: LightningModule) -> None:
        """Take the weights into the average, which makes BatchNorm's statistics stale."""
        super().update(pl_module)
        self._stale = True

    def update_weight(self) -> float:
        """Return 1 / (n + 1)."""
        return 1 / (self.n_averaged + 1)

    def forward_batch(self, pl_module: LightningModule, batch: Any) -> None:  # noqa: ANN401
        """Run a training batch through the module; override it where `forward` takes something else.

        Args:
            pl_module: Holds the average; its BatchNorm layers train, all else evaluates.
            batch: As the training loader gives it, on the device. By default its first part is the input.
        """
        pl_module(batch[0] if isinstance(batch, (list, tuple)) else batch)

    @torch.no_grad()
    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure BatchNorm's statistics for the average, over training batches."""
        if not self._stale or not self._norms or not self.refresh_batches or not self._measures:
            return
        plugin, strategy = trainer.precision_plugin, trainer.strategy
        with (
            undisturbed(trainer.train_dataloader) as loader,
            self._existing().inside(),
            refreshing(pl_module, self._norms),
            plugin.forward_context(),
        ):
            for batch in islice(loader, self.refresh_batches):
                converted = plugin.convert_input(batch)
                self.forward_batch(pl_module, strategy.batch_to_device(converted, dataloader_idx=0))
            if trainer.world_size > 1:
                for norm in self._norms:
                    for statistic in (norm.running_mean, norm.running_var):
                        if statistic is not None:
                            statistic.copy_(strategy.reduce(statistic, reduce_op="mean"))
        self._stale = False

    def state_dict(self) -> dict[str, Any]:
        """Return the counts and the rates."""
        rates = {"begun": self._begun, "initial": self._initial, "from": self._from}
        return {**super().state_dict(), **rates, "epoch_done": self._epoch_done, "stale": self._stale}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        super().load_state_dict(state_dict)
        self._begun, self._initial, self._from = (state_dict[key] for key in ("begun", "initial", "from"))
        self._epoch_done, self._stale = state_dict["epoch_done"], state_dict["stale"]
