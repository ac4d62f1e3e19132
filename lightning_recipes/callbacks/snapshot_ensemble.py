"""Several members from one run, by a cyclic learning rate."""

from __future__ import annotations

from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from ..schedules import cosine, cycle_lengths, triangle
from ..utils.errors import UserError
from ..utils.progress import steps_done, steps_of_run
from .rates import Rates, in_proportion, initial_rates, largest, set_rates
from .snapshots import Member, Snapshots
from .swa import SWA

Cycle = Literal["cosine", "triangle"]


class SnapshotEnsemble(Callback):
    r"""Train several models in one run: the learning rate falls in cycles, and each minimum leaves a member.

    .. math:: \alpha(t) = \frac{\alpha_0}{2} \left( \cos \frac{\pi \, \mathrm{mod}(t - 1, L)}{L} + 1 \right),
              \qquad L = \lceil T / M \rceil

    At each minimum the member's weights are written and it is validated, alone and with those before it;
    members whose absence lowers the validation NLL of the pooled probabilities are left out. When training
    ends, one file holds the others: `EnsembleClassifier.load_from_checkpoint`.

    Args:
        cycles: Number of cycles, M. Where M does not divide the steps of the run, T, the last cycles are a
            step shorter.
        lr_max: The rate that each cycle begins with, of the group with the largest; the others keep their
            ratio to it. By default the optimizer's own.
        lr_min: The rate that it falls to.
        cycle: `cosine`; or `triangle`, down and up, with the member in the middle: fast geometric ensembling.
        start: Fraction of the run before the first cycle, under the module's own schedule; 0.75 or so for
            fast geometric ensembling.
        replace_schedule: Take the place of the module's own schedule, where it has one.
        drop_weak: Leave members out that make the ensemble worse on the validation data.
        dirpath: Where to write; by default the folder `name` in the run's directory.
        name: Name of that folder. Two instances in one run need two names.

    Raises:
        UserError: An argument out of its bounds; in the fit, cycles that do not fit the run, a module with a
            schedule of its own, or a member that is gone when a run is resumed.

    Source: Huang et al., "Snapshot Ensembles: Train 1, Get M for Free", 2017.

    >>> SnapshotEnsemble(5, lr_max=0.1).members
    []
    """

    def __init__(
        self,
        cycles: int = 5,
        *,
        lr_max: float | None = None,
        lr_min: float = 0.0,
        cycle: Cycle = "cosine",
        start: float = 0.0,
        replace_schedule: bool = False,
        drop_weak: bool = True,
        dirpath: str | PathLike[str] | None = None,
        name: str = "snapshots",
    ) -> None:
        if cycles < 1:
            raise UserError(f"`cycles` must be at least 1, got {cycles}.")
        if lr_max is not None and lr_max <= 0:
            raise UserError(f"`lr_max` must be above 0, got {lr_max}.")
        if lr_min < 0 or (lr_max is not None and lr_min >= lr_max):
            raise UserError(f"`lr_min` must be at least 0 and below `lr_max`, got {lr_min}.")
        if cycle not in get_args(Cycle):
            raise UserError(f"`cycle` must be cosine or triangle, got {cycle!r}.")
        if not 0 <= start < 1:
            raise UserError(f"`start` must be a fraction of the run in [0, 1), got {start}.")
        if not name or Path(name).name != name:
            raise UserError(f"`name` must be a folder's name, got {name!r}. Give a path by `dirpath`.")
        self.cycles, self.lr_max, self.lr_min, self.cycle = cycles, lr_max, lr_min, cycle
        self.start, self.replace_schedule, self.drop_weak = start, replace_schedule, drop_weak
        self.dirpath, self.name = dirpath, name
        self._reset()

    def _reset(self) -> None:
        self._snapshots = Snapshots(Path(), self.predict, drop_weak=self.drop_weak)
        self._loaded: dict[str, Any] | None = None
        self._steps = 0
        self._total = 0
        self._initial: Rates = []
        self._lengths: list[int] = []

    @property
    def members(self) -> list[Member]:
        """Every member so far, in the order of the cycles."""
        return self._snapshots.members

    @property
    def state_key(self) -> str:
        """Apart for each `name`."""
        return self._generate_state_key(name=self.name)

    def predict(self, pl_module: LightningModule, batch: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Return probabilities (B, K) and targets (B,) of a validation batch; override it where they differ.

        By default the batch is (inputs, targets), and `predict_step`, or `forward` where there is none,
        gives probabilities or logits.
        """
        inputs, targets = batch
        if is_overridden("predict_step", pl_module):
            outputs = pl_module.predict_step(batch, 0)
        else:
            outputs = pl_module(inputs)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or targets.shape != outputs.shape[:1]:
            raise TypeError("predictions must be (B, K) and targets (B,).")
        tolerance = 1e-3 if outputs.element_size() >= 4 else 1e-2
        outputs = outputs.float()
        sums = outputs.sum(1)
        if outputs.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=tolerance):
            outputs = outputs.softmax(1)
        return outputs, targets

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew for a fit."""
        if stage == "fit":
            self._reset()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lay the cycles out over the run, and take up the members of one that was cut off."""
        log_dir = trainer.log_dir  # a collective call: on every rank
        if getattr(trainer, "fast_dev_run", False):
            return
        if trainer.lr_scheduler_configs and not self.replace_schedule:
            name = type(trainer.lr_scheduler_configs[0].scheduler).__name__
            raise UserError(
                "SnapshotEnsemble sets the learning rate, but the module has a schedule of its own "
                f"({name}). Set `replace_schedule=True`, or return no scheduler from "
                "`configure_optimizers`."
            )
        if any(isinstance(other, SWA) and other.anneal != "none" for other in trainer.callbacks):  # type: ignore[attr-defined]
            raise UserError(
                "SnapshotEnsemble and SWA would both set the learning rate. Set `anneal: none` for SWA, or "
                "leave one of them out."
            )
        total = steps_of_run(trainer)
        if total is None:
            raise UserError(
                "Cycles need a run with an end that is known. Set `max_epochs` or `max_steps`; where the "
                "training loader has no length, `max_steps` or `limit_train_batches`."
            )
        before = round(self.start * total)
        most = (total - before) // 2
        if self.cycles > most:
            raise UserError(
                f"`cycles={self.cycles}` do not fit the {total - before} optimizer steps: a cycle has "
                f"at least 2, so at most {most} do. Train longer, or take fewer cycles."
            )
        self._total, self._lengths = total, [before, *cycle_lengths(total - before, self.cycles)]
        self._initial = initial_rates(trainer)
        if self.lr_min >= self._highest():
            raise UserError(
                f"`lr_min` must be below the rate that a cycle begins with, {self._highest():g}, got "
                f"{self.lr_min}."
            )
        directory = Path(self.dirpath or Path(log_dir or trainer.default_root_dir) / self.name)
        if trainer.is_global_zero:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"`dirpath` {directory} cannot be made: {error.strerror}. Give another."
                ) from error
        self._snapshots = Snapshots(directory, self.predict, drop_weak=self.drop_weak)
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            if loaded["total"] != self._total:
                raise UserError(
                    f"The run was planned for {loaded['total']} optimizer steps and now has {self._total}: "
                    "its cycles would move. Resume with the same length."
                )
            if loaded["minima"] != self._minima():
                raise UserError(
                    f"The run was planned to take members after the steps {loaded['minima']}, and now after "
                    f"{self._minima()}. Resume with the same `cycles`, `cycle` and `start`."
                )
            self._steps, self._initial = loaded["steps"], loaded["initial"]
            self._snapshots.load_state_dict(loaded["members"], trainer)

    def rate(self, step: int) -> float | None:
        """Return the rate of a step, from 0, of the group with the largest; None before the cycles."""
        begun, *ends = accumulate(self._lengths)
        if step < begun:
            return None
        if step >= ends[-1]:
            return self.lr_min
        number = next(number for number, end in enumerate(ends) if step < end)
        length = self._lengths[number + 1]
        within = step - (ends[number] - length)  # from 0
        factor = cosine(within / length) if self.cycle == "cosine" else triangle((within + 1) / length)
        return self.lr_min + (self._highest() - self.lr_min) * factor

    def _highest(self) -> float:
        return largest(self._initial) if self.lr_max is None else self.lr_max

    def _set_rate(self, trainer: Trainer) -> None:
        rate = self.rate(self._steps) if self._total else None
        if rate is not None:
            set_rates(trainer, in_proportion(self._initial, rate))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the first rate."""
        self._steps = steps_done(trainer)
        past = sum(step <= self._steps for step in self._minima()) - len(self.members) if self._total else 0
        if past > 0:
            rank_zero_warn(
                f"The run began without SnapshotEnsemble: {past} of {self.cycles} cycles are past and have "
                "no member."
            )
        self._set_rate(trainer)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Set the rate of this step again, after whatever else has set it."""
        self._set_rate(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Count the step, take a member at a minimum, and set the next rate."""
        before, self._steps = self._steps, steps_done(trainer)
        if self._steps == before or not self._total:
            return
        if self._steps in self._minima():
            self._snapshots.take(trainer, pl_module)
            self._snapshots.tell(trainer, self.cycles)
        self._set_rate(trainer)

    def _minima(self) -> list[int]:
        """Return after how many steps each member is taken."""
        starts = list(accumulate(self._lengths))[:-1]
        within = [n if self.cycle == "cosine" else round(n / 2) for n in self._lengths[1:]]
        return [start + steps for start, steps in zip(starts, within, strict=True)]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the ensemble."""
        if not self._total:
            return
        if len(self.members) < self.cycles:
            rank_zero_warn(
                f"Training ended after {self._steps} of {self._total} steps: the ensemble has "
                f"{len(self.members)} of {self.cycles} members."
            )
        self._snapshots.pool(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the members and the place in the cycle; the weights are in the members' files."""
        if self._loaded is not None:
            return self._loaded
        return {
            "steps": self._steps,
            "total": self._total,
            "minima": self._minima(),
            "initial": self._initial,
            "members": self._snapshots.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the fit begins."""
        self._loaded = state_dict
