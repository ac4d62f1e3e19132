"""Does the model learn from its inputs, and do these say anything of the labels?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ..checks import Finding
from ..checks.dependence import dependence_of_training
from ..checks.input_reach import input_reach
from ..evidence.batches import inputs_of, joined, size_of, take, with_inputs
from ..evidence.loss_calls import LossCalls
from ..evidence.memorizing import main_call
from ..utils.rng import seed_generators
from .examination import Examination

SEEDS, STEPS, BATCH = 5, 40, 64
LEAST_SAMPLES = 128


def reach(examination: Examination) -> Iterator[Finding]:
    """Exchange the inputs of a copy that has taken a few steps, where it could not learn by heart."""
    if _status(examination, "overfit") in ("PASS", None) or not examination.module.automatic_optimization:
        return
    batch = examination.train.batches[0]
    if inputs_of(batch) is None or size_of(batch) < 2:
        return
    rows: list[Tensor] = []

    def step(module: LightningModule, own: Any, given: Any, number: int) -> Any:  # noqa: ANN401
        if number < 10:
            return own(given)
        module.eval()
        with torch.no_grad():
            for each in (given, with_inputs(given, lambda x: x.roll(1, 0))):
                seed_generators(0)
                with LossCalls() as calls:
                    own(each)
                call = main_call(calls)
                if call is not None:
                    rows.append(call.inputs)
        return None

    examination.trials.run([batch], 11, step=step, optimizer="adam", deadline=examination.until("inputs"))
    if len(rows) == 2:
        yield input_reach(*rows)


def learning(examination: Examination) -> Iterator[Finding]:
    """Train on real and on permuted inputs, where the simple test found no dependence of labels on inputs."""
    if _status(examination, "label dependence") != "INFO" or not examination.module.automatic_optimization:
        return
    batches = examination.train.batches
    whole = joined(batches)
    size = size_of(whole)
    inputs = inputs_of(whole)
    if size < LEAST_SAMPLES or inputs is None:
        yield Finding("input dependence", "SKIP", f"Needed are {LEAST_SAMPLES} samples, got {size}.")
        return
    if examination.train.broken:
        whole = take(whole, torch.isfinite(inputs.flatten(1)).all(1).nonzero()[:, 0])
        size = size_of(whole)
    real: list[float] = []
    permuted: list[float] = []
    falls: list[float] = []
    for seed in range(SEEDS):
        if time.monotonic() > examination.until("inputs"):
            break
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        held_out, rest = take(whole, order[: size // 4]), take(whole, order[size // 4 :])
        shuffle = torch.randperm(size_of(rest), generator=torch.Generator().manual_seed(seed + 1000))
        mixed = with_inputs(rest, partial(_reordered, shuffle))
        for given, losses in ((rest, real), (mixed, permuted)):
            trained = _held_out_loss(examination, given, held_out, seed)
            if trained is None:
                yield Finding("input dependence", "SKIP", "The loss is not known, or the step raises.")
                return
            losses.append(trained[1])
            if given is rest:
                falls.append(trained[0])
    learned = bool(falls) and sum(falls) / len(falls) > 0.1
    yield dependence_of_training(real[: len(permuted)], permuted, learned=learned)


def _held_out_loss(
    examination: Examination,
    given: Any,  # noqa: ANN401 - batches have any form
    held_out: Any,  # noqa: ANN401
    seed: int,
) -> tuple[float, float] | None:
    """Return by which share the training loss fell, and the loss on what is held out."""
    size = size_of(given)
    parts = [take(given, slice(i, i + BATCH)) for i in range(0, size - BATCH + 1, BATCH)] or [given]
    losses: list[float] = []

    def step(module: LightningModule, own: Any, batch: Any, number: int) -> Any:  # noqa: ANN401
        if number < STEPS:
            with LossCalls() as calls:
                output = own(batch)
            call = main_call(calls)
            if call is not None:
                losses.append(float(call.value.mean()))
            return output
        module.eval()
        with torch.no_grad(), LossCalls() as calls:
            own(held_out)
        call = main_call(calls)
        if call is not None:
            losses.append(float(call.value.mean()))
        return None

    outcome = examination.trials.run(parts, STEPS + 1, step=step, optimizer="adam", seed=seed)
    if outcome.error is not None or len(losses) < STEPS + 1:
        return None
    first, last = sum(losses[:4]) / 4, sum(losses[STEPS - 4 : STEPS]) / 4
    return (first - last) / max(abs(first), 1e-12), losses[-1]


def _reordered(order: Tensor, inputs: Tensor) -> Tensor:
    return inputs[order.to(inputs.device)]


def _status(examination: Examination, check: str) -> str | None:
    return next((f.status for f in examination.findings if f.check == check), None)
