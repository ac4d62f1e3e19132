"""What the first hundred steps showed, and what has become of BatchNorm after them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import LightningModule

from ..batch_norm import tracking_norms
from ..checks import Finding
from ..checks.batch_norm_gap import batch_norm_gap
from ..checks.progress import progress
from ..checks.stale_gradients import stale_gradients
from ..evidence.first_batches import loss_of
from ..evidence.first_steps import FirstSteps, not_finite
from ..evidence.swaps import without_regularization
from ..utils.rng import seed_generators
from .examination import Examination, Stage


def after_first_steps(
    watched: FirstSteps, losses: list[float], batches: int
) -> tuple[tuple[str, Stage], ...]:
    """Return the stages that judge the first steps.

    Args:
        watched: What was seen at the optimizers.
        losses: That the training step returned, one a batch; none where it returned no loss.
        batches: How many there were.
    """

    def watched_steps(examination: Examination) -> Iterator[Finding]:
        return first_steps(examination, watched, losses, batches)

    return (("first steps", watched_steps), ("batch norm", running_statistics))


def first_steps(
    examination: Examination, watched: FirstSteps, losses: list[float], batches: int
) -> Iterator[Finding]:
    """Judge what was watched in the run itself.

    Args:
        examination: Of the run.
        watched: What was seen at the optimizers.
        losses: That the training step returned, one a batch.
        batches: How many there were.
    """
    stale, windows = watched.stale()
    yield stale_gradients(stale, windows, steps=max(watched.steps.values(), default=0), batches=batches)
    if losses:
        yield progress(losses, broken=not_finite(examination.module))
    else:
        yield Finding("first steps", "SKIP", "The training step returns no loss.")


def running_statistics(examination: Examination) -> Iterator[Finding]:
    """Compare running statistics with the batches' own, on copies of the trained module."""
    norms = tracking_norms(examination.module)
    if not norms:
        yield Finding("batch norm", "SKIP", "No layer keeps running statistics.")
        return
    if not examination.module.automatic_optimization:
        yield Finding("batch norm", "SKIP", "The module steps by hand.")
        return
    losses: dict[bool, list[float]] = {True: [], False: []}

    def step(module: LightningModule, own: Any, batch: Any, _: int) -> Any:  # noqa: ANN401
        output = None
        for batch_wise in (False, True):
            module.eval()
            for norm in norms_of(module) if batch_wise else ():
                norm.train()
            seed_generators(0)
            output = own(batch)
            loss = loss_of(output)
            if loss is not None:
                losses[batch_wise].append(float(loss.detach()))
        return output

    batches = examination.train.batches[:6]
    examination.trials.run(batches, len(batches), step=step, optimizer="held", prepare=without_regularization)
    steps = examination.trainer.global_step
    yield batch_norm_gap(losses[False], losses[True], steps=steps)


def norms_of(module: LightningModule) -> list[Any]:
    """Return the layers that keep running statistics, whatever their mode."""
    return [part for part in module.modules() if getattr(part, "running_mean", None) is not None]
