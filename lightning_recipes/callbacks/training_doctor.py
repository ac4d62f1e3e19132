"""Examine a run before its first step, over its first steps, while it runs and at its end."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from torch import Tensor
from torch.optim import Optimizer

from ..checks import Finding
from ..checks.curves import curves
from ..checks.modes import modes
from ..diagnosis.first_steps import after_first_steps
from ..diagnosis.layers import wrong_modes
from ..diagnosis.stages import BEFORE_TRAINING
from ..diagnosis.table import findings_table
from ..evidence.first_batches import loss_of
from ..evidence.first_steps import FirstSteps
from ..utils.errors import UserError
from ..utils.files import replacing, run_directory
from .activations import ActivationMonitor
from .epoch_metrics import EpochMetrics
from .examining import Examining
from .gradients import GradientMonitor
from .rates import current_rates, largest
from .update_ratio import UpdateRatioMonitor

Monitor = UpdateRatioMonitor | GradientMonitor | ActivationMonitor


class TrainingDoctor(Examining):
    """Say what is wrong with a run, with evidence and what to do, as early as it can be said.

    Before the first step, on copies: data, loss, gradients, parameters, optimizer, schedule, learning rate,
    and whether a few samples can be learned by heart. Over the first steps of the run itself: whether the
    loss falls, gradients are cleared, running statistics fit. While it runs, every so many steps: updates,
    gradients and activations, by `UpdateRatioMonitor`, `GradientMonitor` and `ActivationMonitor` (those
    in the list of callbacks, else its own). At the end: the shapes of the learning curves.

    A table is printed after the examination, and later whenever something is wrong; `findings.json` is
    written at the end of the fit, also after an exception or Ctrl-C. What a check could not do it says, as
    SKIP with the reason.

    Args:
        seconds: That the examination before the first step may take.
        steps: How many first steps are watched.
        every_n_steps: Optimizer steps between two looks at updates and gradients; activations are looked at a
            quarter as often.
        strict: Whether what is wrong before the first step (WARN or FAIL) ends the run with an error.
        table: Whether tables are printed; without them, what is wrong is warned of.
        dirpath: Where `findings.json` and the monitors' files are written; by default the run's directory
            (`trainer.log_dir` or `default_root_dir`).

    Raises:
        UserError: `seconds` is not above 0, `steps` or `every_n_steps` is below 1; with `strict`, something
            is wrong.

    >>> TrainingDoctor(seconds=20).findings
    []
    """

    stages = BEFORE_TRAINING

    def __init__(
        self,
        *,
        seconds: float = 60.0,
        steps: int = 100,
        every_n_steps: int = 25,
        strict: bool = False,
        table: bool = True,
        dirpath: str | PathLike[str] | None = None,
    ) -> None:
        for name, value in (("steps", steps), ("every_n_steps", every_n_steps)):
            if value < 1:
                raise UserError(f"`{name}` must be at least 1, got {value}.")
        self.steps, self.every_n_steps, self.table, self.dirpath = steps, every_n_steps, table, dirpath
        super().__init__(seconds=seconds, strict=strict)

    def _reset(self) -> None:
        super()._reset()
        self._watched: FirstSteps | None = None
        self._losses: list[Tensor] = []
        self._batches = 0
        self._metrics = EpochMetrics()
        self._validated = False
        self._directory: Path | None = None
        self._own: list[Monitor] = [
            UpdateRatioMonitor(self.every_n_steps, dirpath=self.dirpath),
            GradientMonitor(self.every_n_steps, dirpath=self.dirpath),
            ActivationMonitor(4 * self.every_n_steps, table=False, dirpath=self.dirpath),
        ]
        for monitor in self._own:
            monitor.warns = False
        self.monitors: list[Monitor] = list(self._own)

    def state_dict(self) -> dict[str, Any]:
        """Return what was found, the curves and the monitors' measurements."""
        own = {type(monitor).__name__: monitor.state_dict() for monitor in self._own}
        return {**super().state_dict(), "rows": [dict(row) for row in self._metrics.rows], "monitors": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        super().load_state_dict(state_dict)
        self._metrics.rows = [dict(row) for row in state_dict["rows"]]
        for monitor in self._own:
            if (name := type(monitor).__name__) in state_dict["monitors"]:
                monitor.load_state_dict(state_dict["monitors"][name])

    # The way through a fit: the own monitors are told of every hook, as if they stood behind the doctor

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew, with monitors where the run has none."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            given = {type(callback): callback for callback in trainer.callbacks}  # type: ignore[attr-defined]
            self.monitors = [given.get(type(monitor), monitor) for monitor in self._own]
            self._own = [monitor for monitor in self._own if type(monitor) not in given]
        self._tell("setup", trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the directory: on every rank, for `log_dir` is a collective call."""
        super().on_fit_start(trainer, pl_module)
        self._directory = run_directory(trainer, self.dirpath)
        self._tell("on_fit_start", trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the monitors hook the optimizers."""
        self._tell("on_train_start", trainer, pl_module)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Examine the run, once, and watch its first steps from then on."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._watched is None and self._batches == 0 and self._examination is not None:
            self._watched = FirstSteps(trainer.optimizers)
        self._tell("on_train_batch_start", trainer, pl_module, batch, batch_idx)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Let the monitors see the gradients before they are clipped."""
        self._tell("on_before_optimizer_step", trainer, pl_module, optimizer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Keep the loss of each of the first steps, and judge them after the last."""
        self._tell("on_train_batch_end", trainer, pl_module, outputs, batch, batch_idx)
        if self._watched is None:
            return
        self._batches += 1
        loss = loss_of(outputs)
        if loss is not None:
            self._losses.append(loss.detach())
        if self._batches >= self.steps:
            self._judge_first_steps(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See what is logged already."""
        self._metrics.before_validation(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the modes, once."""
        if not self._validated and self._examination is not None and not trainer.sanity_checking:
            self._validated = True
            wrong, total = wrong_modes(pl_module, training=False)
            self._add(trainer, [modes(wrong, total, stage="validation")], title="In validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the metrics."""
        self._metrics.after_validation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the metrics, and the learning rate beside them."""
        self._metrics.after_training(trainer)
        if self._metrics.rows and trainer.optimizers:
            self._metrics.add(trainer, {"lr": largest(current_rates(trainer))})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the run: first steps that were fewer than asked for, what the monitors saw, the curves."""
        self._judge_first_steps(trainer)
        self._tell("on_train_end", trainer, pl_module)
        seen = [f for m in self.monitors for f in m.findings if f.status != "SKIP"]
        self._add(trainer, [*seen, *curves(self._metrics.rows)], title="At the end")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files."""
        self._tell("on_fit_end", trainer, pl_module)
        self.write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks back, and write what there is."""
        self._stop_watching()
        self._tell("on_exception", trainer, pl_module, exception)
        if trainer.state.fn == "fit":
            self.write(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks back."""
        self._stop_watching()
        self._tell("teardown", trainer, pl_module, stage)

    def _tell(self, hook: str, *arguments: Any) -> None:  # noqa: ANN401 - of the hook
        for monitor in self._own:
            getattr(monitor, hook)(*arguments)

    # What is made of it

    def report(self, trainer: Trainer) -> None:
        """Print the table of the examination; without tables, or when strict, warn or end the run."""
        self._show(trainer, self.findings, title="Before the first step")
        if self.strict or not self.table:
            super().report(trainer)

    def write(self, trainer: Trainer) -> None:
        """Write `findings.json`."""
        rehearsal = getattr(trainer, "fast_dev_run", False)
        if not self._found or self._directory is None or not trainer.is_global_zero or rehearsal:
            return
        text = json.dumps([finding.to_dict() for finding in self.findings], indent=2)
        with replacing(self._directory / "findings.json") as path:
            path.write_text(text + "\n", encoding="utf-8")

    def _judge_first_steps(self, trainer: Trainer) -> None:
        examination, watched = self._examination, self._watched
        if examination is None or watched is None:
            return
        losses = torch.stack(self._losses).float().tolist() if self._losses else []
        before = len(examination.findings)
        if trainer.is_global_zero:
            examination.run(after_first_steps(watched, losses, self._batches), timed=False)
        self._stop_watching()
        self._add(trainer, examination.findings[before:], title=f"After {self._batches} steps")

    def _add(self, trainer: Trainer, findings: list[Finding], *, title: str) -> None:
        """Take what was found, and print what is wrong."""
        new = self._shared(trainer, findings)
        self._found += new
        alarms = [finding for finding in new if finding.status in ("FAIL", "WARN")]
        if alarms:
            self._show(trainer, alarms, title=title)

    def _show(self, trainer: Trainer, findings: list[Finding], *, title: str) -> None:
        if self.table and trainer.is_global_zero:
            Console().print(findings_table(findings, title=title))

    def _stop_watching(self) -> None:
        if self._watched is not None:
            self._watched.close()
        self._watched = None
