"""How far the first steps of the user's own optimizer go."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from statistics import median
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ..utils.rng import seed_generators
from .first_batches import loss_of
from .gradients import depth_ratio
from .loss_calls import LossCalls
from .memorizing import main_call
from .swaps import without_regularization
from .trials import Trials, loss_scale, optimizers_of


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
        depth_ratios: ‖g‖/‖W‖ of the first third of the weights over that of the last, at each step.
        first_updates: ‖ΔW‖/‖W‖ of the first third, at each step.
        weights: Of two or more dimensions, after two steps: name → (weight, gradient).
        with_gradient: Names of the parameters that had a gradient other than zero in one of the first
            steps or the last.
        error: What was raised, if anything.
    """

    losses: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    growth: float = nan
    gradient_norm: list[float] = field(default_factory=list)
    clip_coefficients: list[float] = field(default_factory=list)
    depth_ratios: list[float] = field(default_factory=list)
    first_updates: list[float] = field(default_factory=list)
    steps: int = 0
    weights: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    with_gradient: set[str] = field(default_factory=set)
    error: str = ""

    @property
    def cleared(self) -> bool:
        """Whether every step was taken without the gradients that came before it."""
        return bool(self.clip_coefficients) and max(self.clip_coefficients) == 0.0


def pace(trials: Trials, batch: Any, steps: int, *, deadline: float) -> Pace:  # noqa: ANN401
    """Take a few steps with the user's own optimizer on one batch, without dropout and decay.

    Args:
        trials: What runs copies.
        batch: As a training step is given it.
        steps: At most so many batches.
        deadline: Of `time.monotonic()`, after which no step is begun.

    Raises:
        CannotTry: The module cannot be copied.
    """
    found = Pace()
    first_norms: dict[str, Tensor] = {}
    state: dict[str, Any] = {}

    def prepare(module: LightningModule) -> None:
        without_regularization(module)
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        wide = {name: p for name, p in named.items() if p.dim() > 1}
        first_norms.update({name: p.detach().norm() for name, p in wide.items()})
        state["whole"] = _norm(wide.values())

        def before(*_: Any) -> None:  # noqa: ANN401 - what torch hands a hook
            state["old"] = {name: p.detach().clone() for name, p in named.items()}

        def after(*_: Any) -> None:  # noqa: ANN401
            old = state["old"]
            # read only now: a step that is given a closure makes them after its first hook
            gradients = {n: p.grad.detach().clone() for n, p in named.items() if p.grad is not None}
            changes = {name: p.detach() - old[name] for name, p in named.items()}
            found.predicted.append(-sum(float((g * changes[n]).sum()) for n, g in gradients.items()))
            raw = float(torch.stack(state["raw"]).sum().sqrt()) / loss_scale(module) if state["raw"] else 0.0
            found.gradient_norm.append(raw)
            if raw > 0:
                found.clip_coefficients.append(float(_norm(gradients.values())) / raw)
            state["raw"] = []
            sized = {n: float(size) for n, size in first_norms.items() if float(size) > 0 and n in gradients}
            # behind a scale that begins at zero nothing moves in the first step
            moving = [n for n in sized if bool(gradients[n].any())]
            relative = [float(changes[n].norm()) / sized[n] for n in moving] or [0.0]
            found.ratios.append(median(relative))
            found.first_updates.append(median(relative[: max(len(relative) // 3, 1)]))
            sizes = [float(gradients[n].norm()) / size for n, size in sized.items()]
            found.depth_ratios.append(depth_ratio(sizes))
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
            parameter.register_hook(raw)  # type: ignore[no-untyped-call]
        for optimizer in optimizers_of(module):
            optimizer.register_step_pre_hook(before)
            optimizer.register_step_post_hook(after)

    def step(_: LightningModule, own: Any, given: Any, __: int) -> Any:  # noqa: ANN401
        seed_generators(0)
        state["raw"] = []  # of a step that a gradient scaler left out
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
