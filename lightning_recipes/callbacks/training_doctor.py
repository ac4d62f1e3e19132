"""Examine a run before its first step, over its first steps, and at its end."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from ..checks import Finding
from ..diagnosis.first_steps import after_first_steps
from ..diagnosis.stages import BEFORE_TRAINING
from ..diagnosis.table import findings_table
from ..evidence.first_batches import loss_of
from ..evidence.first_steps import FirstSteps
from ..utils.errors import UserError
from ..utils.files import replacing
from .examining import Examining


class TrainingDoctor(Examining):
    """Say what is wrong with a run, with evidence and what to do: before, during and after training.

    Args:
        seconds: That the examination before the first step may take.
        steps: How many first steps are watched.
        strict: Whether what is wrong before the first step (WARN or FAIL) ends the run with an error.
        table: Whether tables are printed.
        dirpath: Where `findings.json` is written; by default the run's directory (`trainer.log_dir` or
            `default_root_dir`).

    Raises:
        UserError: `seconds` is not above 0, or `steps` is below 1; with `strict`, something is wrong.
    """

    stages = BEFORE_TRAINING

    def __init__(
        self,
        *,
        seconds: float = 60.0,
        steps: int = 100,
        strict: bool = False,
        table: bool = True,
        dirpath: str | PathLike[str] | None = None,
    ) -> None:
        if steps < 1:
            raise UserError(f"`steps` must be at least 1, got {steps}.")
        self.steps, self.table, self.dirpath = steps, table, dirpath
        super().__init__(seconds=seconds, strict=strict)

    def _reset(self) -> None:
        super()._reset()
        self._watched: FirstSteps | None = None
        self._losses: list[Tensor] = []
        self._batches = 0
        self._directory: Path | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the directory: on every rank, for `log_dir` is a collective call."""
        log_dir = trainer.log_dir
        self._directory = Path(self.dirpath or log_dir or trainer.default_root_dir)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Examine the run, once, and watch its first steps from then on."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._watched is None and self._batches == 0 and self._examination is not None:
            self._watched = FirstSteps(trainer.optimizers)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss of each of the first steps, and judge them after the last."""
        if self._watched is None:
            return
        self._batches += 1
        loss = loss_of(outputs)
        if loss is not None:
            self._losses.append(loss.detach())
        if self._batches >= self.steps:
            self._judge_first_steps(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the first steps of a run that had no more."""
        self._judge_first_steps(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `findings.json`."""
        self.write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks back, and write what there is."""
        self._stop_watching()
        if trainer.state.fn == "fit":
            self.write(trainer)

    def report(self, trainer: Trainer) -> None:
        """Print the table; where there is none, or the callback is strict, warn or end the run."""
        if self.table and trainer.is_global_zero:
            Console().print(findings_table(self.findings, title="Before the first step"))
        if self.strict or not self.table:
            super().report(trainer)

    def _judge_first_steps(self, trainer: Trainer) -> None:
        examination, watched = self._examination, self._watched
        if examination is None or watched is None:
            return
        losses = torch.stack(self._losses).float().tolist() if self._losses else []
        before = len(examination.findings)
        if trainer.is_global_zero:
            examination.run(after_first_steps(watched, losses, self._batches))
        self._stop_watching()
        self._add(trainer, examination.findings[before:], title=f"After {self._batches} steps")

    def _add(self, trainer: Trainer, findings: list[Finding], *, title: str) -> None:
        """Take what was found, and print what is wrong."""
        new = self._shared(trainer, findings)
        self._found += new
        alarms = [finding for finding in new if finding.status in ("FAIL", "WARN")]
        if alarms and self.table and trainer.is_global_zero:
            Console().print(findings_table(alarms, title=title))

    def _stop_watching(self) -> None:
        if self._watched is not None:
            self._watched.close()
        self._watched = None

    def write(self, trainer: Trainer) -> None:
        """Write `findings.json`."""
        rehearsal = getattr(trainer, "fast_dev_run", False)
        if not self._found or self._directory is None or not trainer.is_global_zero or rehearsal:
            return
        text = json.dumps([finding.to_dict() for finding in self.findings], indent=2)
        with replacing(self._directory / "findings.json") as path:
            path.write_text(text + "\n", encoding="utf-8")
