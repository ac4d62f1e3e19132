"""Attempts to learn a few samples by heart, each changed in one thing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from .batches import labels_of, with_inputs
from .first_batches import loss_of
from .loss_calls import BINARY, CLASSIFICATION, LossCall, LossCalls, rows_of
from .trials import Trials

LOOK_EVERY = 5


@dataclass
class Attempt:
    """What one attempt measured.

    Args:
        losses: What each step returned, before its update.
        correct: Share of right answers at each look; empty where there are no classes.
        floor: The least that the loss can be; None where the loss is not known.
        error: What was raised, if anything.
        cut_off: Time ran out.
    """

    losses: list[Tensor] = field(default_factory=list)
    correct: list[Tensor] = field(default_factory=list)
    floor: float | None = None
    error: str = ""
    cut_off: bool = False

    def values(self) -> list[float]:
        """Return the losses as numbers."""
        return torch.stack(self.losses).float().tolist() if self.losses else []

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

    The random numbers of each step are the same, so that whatever is drawn within it (blends, masks) is part of
    what is learned.

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
    if swap == "inputs":
        batch = with_inputs(batch, standardized)

    def step(module: LightningModule, own: Any, given: Any, number: int) -> Any:  # noqa: ANN401
        torch.manual_seed(0)
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
        if number == 0:
            attempt.floor = 0.0 if swap == "loss" else least_loss(calls)
        if number % LOOK_EVERY == 0 and call is not None:
            right = share_correct(call, given)
            if right is not None:
                attempt.correct.append(right)
        return output

    def after(_: LightningModule, number: int) -> bool:
        return number % LOOK_EVERY == 1 and enough(attempt)

    outcome = trials.run(
        [batch],
        steps,
        step=step,
        optimizer=optimizer,
        prepare=_PREPARE.get(swap),
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


def share_correct(call: LossCall, batch: Any) -> Tensor | None:  # noqa: ANN401
    """Return the share of right answers, on the device; None where there are no classes."""
    if call.name in CLASSIFICATION and call.inputs.dim() > 1:
        labels = call.indices if call.targets is not None else labels_of(batch)
        if labels is None or len(labels) != len(call.logits):
            return None
        counted = labels != call.options.get("ignore_index", -100)
        right = call.logits.argmax(1) == labels
        return (right & counted).sum() / counted.sum().clamp_min(1)
    if call.name in BINARY and call.targets is not None:
        threshold = 0.0 if call.name.endswith("logits") else 0.5
        return ((call.inputs > threshold) == (call.targets > 0.5)).float().mean()
    return None


def least_loss(calls: LossCalls) -> float | None:
    """Return the least that the loss can be: the entropy of the targets; None where the loss is not known."""
    call = main_call(calls)
    if call is None or call.targets is None and call.name != "log_softmax":
        return None
    if call.name in ("cross_entropy", "log_softmax") and call.inputs.dim() > 1:
        classes = call.logits.shape[1]
        smoothing = float(call.options.get("label_smoothing") or 0.0)
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
        return max(float(entropy), 0.0)
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


def standardized(inputs: Tensor) -> Tensor:
    """Return inputs with mean 0 and standard deviation 1 by channel, those that are not finite set to 0."""
    finite = torch.where(inputs.isfinite(), inputs, torch.zeros_like(inputs))
    dims = [0, *range(2, inputs.dim())]
    mean = finite.mean(dims, keepdim=True)
    return (finite - mean) / finite.std(dims, keepdim=True).clamp_min(1e-6)


@torch.no_grad()
def kaiming(module: nn.Module) -> None:
    """Initialise all weights anew with variance 2 / fan-in, biases with 0, norms with 1 and 0."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.dim() > 1 and parameter[0].numel():
                nn.init.kaiming_normal_(parameter)
            elif name.endswith("bias"):
                parameter.zero_()
            elif name == "weight":
                parameter.fill_(1.0)


def without_regularization(module: LightningModule) -> None:
    """Switch dropout, stochastic depth and weight decay off."""
    for part in module.modules():
        for key in ("p", "drop_prob", "dropout"):
            if isinstance(getattr(part, key, None), float):
                setattr(part, key, 0.0)
    for group in (g for optimizer in module._trial_optimizers for g in optimizer.param_groups):
        for key in ("weight_decay", "lambd"):
            if key in group:
                group[key] = 0.0


def thawed(module: LightningModule) -> None:
    """Train all weights, also those that are frozen or that no optimizer holds."""
    optimizers = module._trial_optimizers
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    missing = [p for p in module.parameters() if id(p) not in held]
    if missing and optimizers:
        optimizers[0].add_param_group({"params": missing})


_PREPARE: dict[str, Callable[[LightningModule], None]] = {
    "initialization": kaiming,
    "regularization": without_regularization,
    "frozen weights": thawed,
}


@dataclass
class Pace:
    """How far the first steps of the user's own optimizer go.

    Args:
        losses: On the one batch, before each step.
        predicted: Decrease that the gradient predicts for each step, −g·Δw.
        ratios: ‖ΔW‖/‖W₀‖ of each step, the median over weights of two or more dimensions.
        growth: Norm of all weights at the end over that at the beginning.
        gradient_norm: Of each step, as the backward passes gave it.
        clip_coefficients: Norm that the optimizer was given over this.
        steps: Taken by optimizers.
        weights: Of two or more dimensions, after two steps: name → (weight, gradient).
        error: What was raised, if anything.
    """

    losses: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    growth: float = nan
    gradient_norm: list[float] = field(default_factory=list)
    clip_coefficients: list[float] = field(default_factory=list)
    steps: int = 0
    weights: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    with_gradient: set[str] = field(default_factory=set)
    error: str = ""


def pace(trials: Trials, batch: Any, steps: int, *, deadline: float) -> Pace:  # noqa: ANN401
    """Take a few steps with the user's own optimizer on one batch, without dropout and decay."""
    found = Pace()
    first_norms: dict[str, Tensor] = {}
    scale = trials.loss_scale()
    state: dict[str, Any] = {}

    def prepare(module: LightningModule) -> None:
        without_regularization(module)
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        wide = {name: p for name, p in named.items() if p.dim() > 1}
        first_norms.update({name: p.detach().norm() for name, p in wide.items()})
        state["whole"] = _norm(wide.values())

        def before(*_: Any) -> None:  # noqa: ANN401
            state["old"] = {name: p.detach().clone() for name, p in named.items()}
            state["gradients"] = {n: p.grad.detach().clone() for n, p in named.items() if p.grad is not None}

        def after(*_: Any) -> None:  # noqa: ANN401
            old, gradients = state["old"], state["gradients"]
            changes = {name: p.detach() - old[name] for name, p in named.items()}
            found.predicted.append(-sum(float((g * changes[n]).sum()) for n, g in gradients.items()))
            raw = float(torch.stack(state["raw"]).sum().sqrt()) / scale if state["raw"] else 0.0
            if raw > 0:
                found.gradient_norm.append(raw)
                found.clip_coefficients.append(float(_norm(gradients.values())) / raw)
            state["raw"] = []
            relative = [
                float(changes[n].norm() / size)
                for n, size in first_norms.items()
                if float(size) > 0 and n in gradients
            ]
            if relative:
                found.ratios.append(float(torch.tensor(relative).median()))
            found.steps += 1
            if found.steps == 2:
                found.weights = {
                    n: (p.detach().clone(), gradients[n]) for n, p in wide.items() if n in gradients
                }
            if found.steps in (1, 2, 3, steps):
                found.with_gradient |= {n for n, g in gradients.items() if bool(g.any())}

        def raw(gradient: Tensor) -> None:
            state["raw"].append(gradient.detach().float().square().sum())

        state["raw"] = []
        for parameter in named.values():
            parameter.register_hook(raw)
        for optimizer in module._trial_optimizers:
            optimizer.register_step_pre_hook(before)
            optimizer.register_step_post_hook(after)

    def step(_: LightningModule, own: Any, given: Any, __: int) -> Any:  # noqa: ANN401
        torch.manual_seed(0)
        with LossCalls() as calls:
            output = own(given)
        loss = loss_of(output)
        call = main_call(calls)
        if loss is not None:
            found.losses.append(float(loss.detach()))
        elif call is not None:
            found.losses.append(float(call.value.mean()))
        return output

    outcome = trials.run([batch], steps, step=step, prepare=prepare, deadline=deadline)
    if outcome.error is not None:
        found.error = f"{type(outcome.error).__name__}: {outcome.error}".splitlines()[0]
    wide = [p for p in outcome.module.parameters() if p.requires_grad and p.dim() > 1]
    whole = float(state["whole"]) if "whole" in state else 0.0
    found.growth = float(_norm(wide)) / whole if wide and whole > 0 else 1.0
    return found


def _norm(tensors: Any) -> Tensor:  # noqa: ANN401 - any iterable of tensors
    norms = [t.detach().float().norm() for t in tensors]
    return torch.stack(norms).norm() if norms else torch.zeros(())


def finite(values: list[float]) -> bool:
    """Return whether there are values, and all are finite."""
    return bool(values) and all(map(isfinite, values))
