"""One examination of a run that is about to begin: what it may use, what it has gathered, what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from lightning.pytorch import Trainer

from ..checks import Finding
from ..evidence.first_batches import FirstBatches
from ..evidence.freshness import looks_untrained
from ..evidence.pace import Pace
from ..evidence.scan import Scan, scan
from ..evidence.trials import CannotTry, Trials
from ..utils.alone import alone

# By when, as a share of the time, a part of the examination begins nothing new
SHARES = {
    "training data": 0.15,
    "validation data": 0.2,
    "first batches": 0.3,
    "pace": 0.4,
    "second look": 0.5,
    "own attempt": 0.6,
    "adam": 0.7,
    "swaps": 0.9,
    "inputs": 0.95,
    "all": 1.0,
}
Stage = Callable[["Examination"], Iterable[Finding]]


class Examination:
    """What the stages share. Made within a fit, after everything is set up and before the first step.

    Args:
        trainer: Of the run.
        seconds: That all stages together may take.
    """

    def __init__(self, trainer: Trainer, *, seconds: float) -> None:
        self.trainer, self.module = trainer, trainer.lightning_module
        self.seconds = seconds
        self.began = time.monotonic()
        self.findings: list[Finding] = []
        self.first: FirstBatches | None = None
        self.pace: Pace | None = None

    def until(self, part: str) -> float:
        """Return the moment, of `time.monotonic()`, from which a part begins nothing new.

        Args:
            part: A key of `SHARES`.
        """
        return self.began + SHARES[part] * self.seconds

    def run(self, stages: Iterable[tuple[str, Stage]], *, timed: bool = True) -> list[Finding]:
        """Run the stages in order; one that cannot run, or for which no time is left, says SKIP and why.

        Args:
            stages: Names, under which they say SKIP, and functions.
            timed: Whether the time counts; later in a run it does not.

        Returns:
            All findings so far, in the order in which they were found.
        """
        for name, stage in stages:
            if timed and time.monotonic() > self.until("all"):
                self.findings.append(Finding(name, "SKIP", f"No time was left of {self.seconds:g} seconds."))
                continue
            try:
                with alone():  # the other processes wait for what this one finds
                    self.findings.extend(stage(self))
            except CannotTry as reason:
                self.findings.append(Finding(name, "SKIP", f"It could not be tried: {first_line(reason)}."))
            # Whatever a stranger's module does, an examination must not break its run.
            except Exception as error:
                said = f"It could not run: {type(error).__name__}: {first_line(error)}."
                self.findings.append(Finding(name, "SKIP", said))
        return self.findings

    @cached_property
    def trials(self) -> Trials:
        """What runs copies."""
        return Trials(self.trainer)

    @cached_property
    def train(self) -> Scan:
        """What a look at the training data gave."""
        return scan(self.trainer, self.trainer.train_dataloader, deadline=self.until("training data"))

    @cached_property
    def validation(self) -> Scan | None:
        """What a look at the validation data gave; None where there is none."""
        loader = self.validation_loader
        return None if loader is None else scan(self.trainer, loader, deadline=self.until("validation data"))

    @cached_property
    def validation_loader(self) -> Any:  # noqa: ANN401 - any iterable of batches
        """The first validation loader, asked for once; None without one."""
        return validation_loader(self.trainer)

    @cached_property
    def trained(self) -> bool:
        """Whether the weights are not fresh, as of a pretrained backbone."""
        return looks_untrained(self.module) is False

    @property
    def lossless(self) -> bool:
        """Whether an automatic step returned no loss for any batch, so that Lightning trains nothing."""
        losses = self.first.losses if self.first is not None else []
        return self.module.automatic_optimization and bool(losses) and all(loss is None for loss in losses)

    def causes(self) -> list[str]:
        """Return the causes that FAIL and WARN findings name, worst and likeliest first."""
        named = [
            f.causes[0]
            for status in ("FAIL", "WARN")
            for f in self.findings
            if f.status == status and f.causes
        ]
        return list(dict.fromkeys(named))


def first_line(error: Exception) -> str:
    r"""Return the first line of an error's text, without its full stop.

    >>> first_line(ValueError("Too few samples.\nSee the manual."))
    'Too few samples'
    """
    return next(iter(str(error).splitlines()), "").rstrip(".")


def validation_loader(trainer: Trainer) -> Any:  # noqa: ANN401 - any iterable of batches
    """Return the first validation loader, made anew where the run has not made it yet; None without one."""
    loaders = trainer.val_dataloaders
    if loaders is None:
        source = trainer.fit_loop.epoch_loop.val_loop._data_source
        if not source.is_defined() or not trainer.enable_validation:
            return None
        loaders = source.dataloader()
    if isinstance(loaders, dict):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return loaders[0] if loaders else None
    return loaders
