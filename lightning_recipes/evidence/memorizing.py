"""Attempts to learn a few samples by heart, each changed in one thing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import nan
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional

from ..utils.rng import seed_generators
from .batches import labels_of, with_inputs
from .first_batches import loss_of
from .loss_calls import BINARY, CLASSIFICATION, REGRESSION, LossCall, LossCalls, rows_of
from .swaps import PREPARE, standardized
from .trials import Trials

LOOK_EVERY = 5
NEARLY = 0.1


@dataclass
class Attempt:
    """What one attempt measured.

    Args:
        losses: What each step returned, before its update.
        correct: Share of right answers at each look; empty where there are no classes.
        slopes: Norm of the gradient at what the loss was given, at each look.
        floor: The least that the loss can be; None where the loss is not known.
        error: What was raised, if anything.
        cut_off: Time ran out.
    """

    losses: list[Tensor] = field(default_factory=list)
    correct: list[Tensor] = field(default_factory=list)
    slopes: list[Tensor] = field(default_factory=list)
    floor: float | None = None
    error: str = ""
    cut_off: bool = False

    def values(self) -> list[float]:
        """Return the losses as numbers."""
        return torch.stack(self.losses).float().tolist() if self.losses else []

    def slope(self) -> float:
        """Return the last slope over the first: 0 at the least loss that there is, whatever that be."""
        first = float(self.slopes[0]) if self.slopes else 0.0
        return float(self.slopes[-1]) / first if first > 0 else nan

    def accuracy(self) -> float | None:
        """Return the last share of right answers."""
        return float(self.correct[-1]) if self.correct else None


def memorize(
    trials: Trials,
    batch: Any,  # noqa: ANN401 - batches have any form
    steps: int,
    *,
    deadline: float,
    enough: Callable[[Attempt], bool],
    optimizer: str = "own",
    swap: str = "",
) -> Attempt:
    """Train a copy on one batch, over and over, until it is enough.

    The random numbers of each step are the same, so that whatever is drawn within it (blends, masks) is
    part of what is learned.

    Args:
        trials: What runs copies.
        batch: As a training step is given it.
        steps: At most so many.
        deadline: Of `time.monotonic()`.
        enough: Asked every 5 steps.
        optimizer: `own` or `adam`.
        swap: What is exchanged: `loss`, `inputs`, `initialization`, `regularization`, `modes` or
            `frozen weights`.
    """
    attempt = Attempt()
    looked_at: list[LossCall] = []
    if swap == "inputs":
        batch = with_inputs(batch, standardized)

    def step(module: LightningModule, own: Any, given: Any, number: int) -> Any:  # noqa: ANN401
        seed_generators(0)
        if swap == "modes":
            module.train()
        with LossCalls() as calls:
            output = own(given)
        call = main_call(calls)
        if swap == "loss":
            output = standard_loss(call, given)
        loss = loss_of(output)
        if loss is None and call is not None:
            loss = call.value.mean()
        if loss is not None:
            attempt.losses.append(loss.detach())
        if number == 0 and swap == "loss":
            attempt.floor = 0.0
        elif number == 0 and accounts_for(calls, loss):
            attempt.floor = least_loss(calls)
        if number % LOOK_EVERY == 0 and call is not None:
            looked_at[:] = [call]
            right = share_correct(calls, given)
            if right is not None:
                attempt.correct.append(right)
        return output

    def after(_: LightningModule, number: int) -> bool:
        if number % LOOK_EVERY == 1 and looked_at and looked_at[0].gradient is not None:
            attempt.slopes.append(looked_at[0].gradient.float().norm())
        return number % LOOK_EVERY == 1 and enough(attempt)

    outcome = trials.run(
        [batch],
        steps,
        step=step,
        optimizer=optimizer,
        prepare=PREPARE.get(swap),
        after=after,
        deadline=deadline,
    )
    if outcome.error is not None:
        attempt.error = f"{type(outcome.error).__name__}: {outcome.error}".splitlines()[0]
    attempt.cut_off = time.monotonic() > deadline and outcome.steps < steps
    return attempt


def main_call(calls: LossCalls) -> LossCall | None:
    """Return the call that judges classes; without one, the first of any."""
    found = calls.classification() or calls.seen
    return found[0] if found else None


def accounts_for(calls: LossCalls, loss: Tensor | None) -> bool:
    """Return whether a squared error or its like is all that the step's loss consists of, up to its sign.

    Where it is not, as in a variational autoencoder, nobody knows how small the loss can be. Losses over
    classes have their right answers to go by.
    """
    call = main_call(calls)
    if call is None or call.name not in REGRESSION or loss is None:
        return True
    values = [float(other.value.mean()) for other in calls.seen]
    whole = abs(float(loss.detach()))
    return any(abs(whole - value) <= 0.05 * whole for value in (*values, sum(values)))


def share_correct(calls: LossCalls, batch: Any) -> Tensor | None:  # noqa: ANN401
    """Return the share of right answers, on the device; None where there are no classes.

    Right is either label of a blend, and any class of a soft target that is about as likely as the likeliest.
    """
    call = main_call(calls)
    if call is None:
        return None
    if call.name in CLASSIFICATION and call.inputs.dim() > 1:
        labels = call.indices if call.targets is not None else labels_of(batch)
        if labels is None or len(labels) != len(call.logits):
            return None
        counted = labels != call.options.get("ignore_index", -100)
        answers = call.logits.argmax(1)
        right = answers == labels
        for other in calls.classification():
            if other.source == call.source and other.indices is not None and len(other.indices) == len(right):
                right = right | (answers == other.indices)
        if call.targets is not None and call.targets.shape == call.inputs.shape:
            t = rows_of(call.targets)
            right = t.gather(1, answers[:, None])[:, 0] > t.amax(1) - NEARLY
        share: Tensor = (right & counted).sum() / counted.sum().clamp_min(1)
        return share
    if call.name in BINARY and call.targets is not None:
        threshold = 0.0 if call.name.endswith("logits") else 0.5
        return ((call.inputs > threshold) == (call.targets > 0.5)).float().mean()
    return None


def least_loss(calls: LossCalls) -> float | None:
    """Return the least that the loss can be: the entropy of the targets; None where the loss is not known."""
    call = main_call(calls)
    if call is None or (call.targets is None and call.name != "log_softmax"):
        return None
    if call.name in ("cross_entropy", "log_softmax") and call.inputs.dim() > 1:
        classes = call.logits.shape[1]
        smoothing = float(call.options.get("label_smoothing") or 0.0)
        if call.options.get("weight") is not None and (smoothing or not call.hard):
            return None
        if call.targets is not None and call.targets.is_floating_point():
            t = rows_of(call.targets).double()
            t = t * (1 - smoothing) + smoothing / classes
            entropy = -(t * t.clamp_min(1e-12).log()).sum(1).mean()
        else:
            rest = smoothing / classes
            top = 1 - smoothing + rest
            t = torch.tensor([top] + [rest] * (classes - 1), dtype=torch.float64)
            entropy = -(t * t.clamp_min(1e-300).log()).sum()
        return max(float(entropy), 0.0) * (len(call.logits) if call.reduction == "sum" else 1)
    if call.name in BINARY and call.targets is not None and call.name != "soft_margin_loss":
        t = call.targets.double().clamp(0, 1)
        entropy = -(t * t.clamp_min(1e-300).log() + (1 - t) * (1 - t).clamp_min(1e-300).log()).mean()
        weighted = any(call.options.get(key) is not None for key in ("weight", "pos_weight"))
        if weighted and float(entropy) > 0:
            return None
        return max(float(entropy), 0.0) * (t.numel() if call.reduction == "sum" else 1)
    return 0.0


def standard_loss(call: LossCall | None, batch: Any) -> Tensor:  # noqa: ANN401
    """Return the usual loss for these targets on the numbers before any softmax or sigmoid, with its graph.

    Raises:
        ValueError: The loss is not known, or its targets are not.
    """
    if call is None or call.live is None:
        raise ValueError("the loss is not known")
    if call.name in BINARY and call.targets is not None:
        return functional.binary_cross_entropy_with_logits(call.live, call.targets.to(call.live.dtype))
    if call.name in CLASSIFICATION or _one_hot(call.targets):
        labels = call.indices if call.targets is not None else labels_of(batch)
        rows = rows_of(call.live)
        if labels is None or rows.dim() != 2 or len(labels) != len(rows):
            raise ValueError("the labels are not known")
        return functional.cross_entropy(rows, labels, ignore_index=call.options.get("ignore_index", -100))
    if call.targets is None:
        raise ValueError("the targets are not known")
    return functional.mse_loss(call.live, call.targets)


def _one_hot(targets: Tensor | None) -> bool:
    return (
        targets is not None
        and targets.dim() == 2
        and targets.shape[1] > 1
        and bool((targets.sum(1) == 1).all())
    )
