"""Look for what is wrong with a run before it is begun."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins.precision import Precision
from rich.table import Table

from ..callbacks import TrainingDoctor
from ..checks import Finding
from ..diagnosis.errors import error_finding
from ..diagnosis.examination import first_line
from ..diagnosis.table import findings_table
from ..diagnosis.verdict import weighed
from ..utils.errors import UserError
from ..utils.loaders import undisturbed
from ..utils.rng import preserved_generators
from ..utils.silence import kept_signals, quiet

STEPS = 100
BEFORE = 0.7  # share of the time for the examination before the first step


@dataclass(frozen=True)
class Report:
    """What was found.

    Args:
        findings: Worst first, those that explain before those that are explained.
        seconds: That it took.
    """

    findings: Sequence[Finding]
    seconds: float

    @property
    def status(self) -> str:
        """The worst status of all; what could not run is no fault."""
        worst = self.findings[0].status if self.findings else "PASS"
        return "PASS" if worst == "SKIP" else worst

    def table(self) -> Table:
        """Return the findings as a table for the terminal."""
        return findings_table(self.findings, title=f"{self.status} after {self.seconds:.0f} s")

    def to_json(self) -> str:
        """Return the findings as JSON: `status`, `seconds` and a list `findings`."""
        found = [finding.to_dict() for finding in self.findings]
        return json.dumps(
            {"status": self.status, "seconds": round(self.seconds, 1), "findings": found}, indent=2
        )


def check(
    module: LightningModule,
    datamodule: Any,  # noqa: ANN401 - a LightningDataModule or loaders
    *,
    seconds: float = 60.0,
    trainer: Trainer | None = None,
) -> Report:
    """Say what is wrong with a training run before it is begun.

    All of it happens on a copy of the module: the examination before the first step, then up to 100 steps of
    real training with everything being watched, then a few batches of validation. Neither the module nor any
    random number of the process is changed.

    Args:
        module: Any LightningModule.
        datamodule: A LightningDataModule, a training loader, `(train, val)` loaders, or a mapping with
            `train` and `val`.
        seconds: About how long it may take; with less time more checks say SKIP.
        trainer: Whose settings are used: precision, clipping, accumulation, length of the run, device. It
            is not run, and its callbacks are not called.

    Raises:
        UserError: `seconds` is not above 0, or `datamodule` is none of these.
    """
    data = _data(datamodule)
    began = time.monotonic()
    doctor = _Doctor(seconds=BEFORE * seconds, steps=STEPS, table=False)
    raised: Exception | None = None
    with preserved_generators(), quiet(), kept_signals():
        try:
            subject = copy.deepcopy(module)
        except Exception as error:  # a stranger's module: why it has no copy is all there is to say
            said = f"The module cannot be copied, so nothing can be tried: {first_line(error)}."
            return Report([Finding("examination", "SKIP", said)], time.monotonic() - began)
        run = _trainer(trainer, [doctor, _Ending(STEPS, began + seconds)])
        try:
            with _undisturbed(data) as twins:
                run.fit(subject, **twins)
        except SystemExit as left:  # how Lightning leaves after Ctrl-C
            raise KeyboardInterrupt from left
        except Exception as error:  # the user's own code raises; what the doctor saw before stands
            raised = error
    findings = list(doctor.findings)
    if raised is not None and not any(f.check == "first step" and f.status == "FAIL" for f in findings):
        findings.append(error_finding(raised))
    return Report(weighed(findings), time.monotonic() - began)


@contextmanager
def _undisturbed(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give data whose iteration the loaders do not notice, and the datamodule its trainer back."""
    datamodule = data.get("datamodule")
    if datamodule is not None:
        before = datamodule.trainer
        try:
            yield data
        finally:
            datamodule.trainer = before
        return
    with ExitStack() as stack:
        yield {name: stack.enter_context(undisturbed(loader)) for name, loader in data.items()}


def _data(given: Any) -> dict[str, Any]:  # noqa: ANN401
    if isinstance(given, LightningDataModule):
        return {"datamodule": given}
    if isinstance(given, Mapping):
        if "train" not in given:
            raise UserError(
                f"`datamodule` must have `train` among its keys, got {', '.join(map(str, given))}."
            )
        return {"train_dataloaders": given["train"], "val_dataloaders": given.get("val")}
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return {"train_dataloaders": given[0], "val_dataloaders": given[1]}
    if hasattr(given, "__iter__") and not isinstance(given, (tuple, list, str)):
        return {"train_dataloaders": given}
    raise UserError(
        "`datamodule` must be a LightningDataModule, a training loader, `(train, val)` loaders or a mapping "
        f"of them, got {type(given).__name__}."
    )


class _Doctor(TrainingDoctor):
    """Keeps what it finds to itself."""

    def report(self, trainer: Trainer) -> None:
        pass

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the monitors' files unwritten."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the monitors' files unwritten."""

    def write(self, trainer: Trainer) -> None:
        pass


class _Ending(Callback):
    """Ends the run after so many batches, or in time; validation follows."""

    def __init__(self, steps: int, deadline: float) -> None:
        self.steps, self.deadline, self.done = steps, deadline, 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: ANN401
        self.done += 1
        if self.done >= self.steps or time.monotonic() > self.deadline:
            trainer.should_stop = True


def _trainer(given: Trainer | None, callbacks: list[Callback]) -> Trainer:
    settings: dict[str, Any] = {"max_epochs": 10}
    if given is not None:
        plugin = given.precision_plugin
        settings = {
            "accelerator": given.accelerator,
            "plugins": None if type(plugin) is Precision else [copy.deepcopy(plugin)],
            "gradient_clip_val": given.gradient_clip_val,
            "gradient_clip_algorithm": given.gradient_clip_algorithm,
            "accumulate_grad_batches": given.accumulate_grad_batches,
            "max_epochs": given.max_epochs,
            "max_steps": given.max_steps,
            "limit_train_batches": given.limit_train_batches,
        }
    return Trainer(
        **settings,
        devices=1,
        callbacks=callbacks,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        logger=DummyLogger(),  # a step may log what it likes
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
