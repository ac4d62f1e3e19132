"""What a module does with its first batches: the loss calls, the gradients, what reaches its first layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from .activations import ActivationRecord, recording
from .batches import labels_of
from .loss_calls import LossCall, LossCalls, origin_of
from .trials import Outcome, Trials


@dataclass
class FirstBatches:
    """What was seen before the first step.

    Args:
        batches: What the module was given.
        calls: The loss calls of each batch.
        losses: What the step returned for each batch; None where it returned no tensor.
        differentiable: Whether each returned loss depends on the weights.
        first_inputs: What reached the first layer with weights, in each batch.
        modelled: Whether the loss was given the very output of a layer or net, with no function between.
        evaluating: Names of layers that were in evaluation mode when they were called.
        with_gradient: Names of the parameters that had a gradient other than zero.
        activations: Of all batches.
        outcome: Of the trial: its error, and how far it came.
    """

    batches: Sequence[Any]
    calls: list[LossCalls] = field(default_factory=list)
    losses: list[Tensor | None] = field(default_factory=list)
    differentiable: list[bool] = field(default_factory=list)
    first_inputs: list[Tensor] = field(default_factory=list)
    modelled: list[bool] = field(default_factory=list)
    evaluating: set[str] = field(default_factory=set)
    with_gradient: set[str] = field(default_factory=set)
    activations: ActivationRecord = field(default_factory=ActivationRecord)
    outcome: Outcome | None = None

    def classification(self) -> list[tuple[LossCall, Tensor | None, bool]]:
        """Return the calls over classes of all batches: call, labels (N,), whether targets are mixed."""
        found = []
        for batch, calls in zip(self.batches, self.calls, strict=False):
            usable = calls.classification()
            for call in usable:
                labels = call.indices if call.targets is not None else labels_of(batch)
                shared = sum(other.source == call.source for other in usable) > 1
                mixed = shared or (call.targets is not None and not call.hard)
                if labels is not None and len(labels) != len(call.logits):
                    labels = None
                found.append((call, labels, mixed))
        return found


def first_batches(trials: Trials, batches: Sequence[Any], *, deadline: float) -> FirstBatches:
    """Hand each batch to a copy's own step, with backward pass and without any optimizer step.

    Args:
        trials: What runs copies.
        batches: As a training step is given them.
        deadline: Of `time.monotonic()`, after which no further batch is begun.

    Raises:
        CannotTry: The module cannot be copied.
    """
    seen = FirstBatches(batches)

    def step(module: LightningModule, own: Any, batch: Any, number: int) -> Any:  # noqa: ANN401
        with (
            LossCalls() as calls,
            recording(module, seen.activations),
            watched_layers(module) as layers,
        ):
            output = own(batch)
        loss = loss_of(output)
        seen.calls.append(calls)
        seen.losses.append(None if loss is None else loss.detach())
        seen.differentiable.append(loss is not None and loss.requires_grad)
        if layers.first is not None:
            seen.first_inputs.append(layers.first)
        seen.evaluating |= layers.evaluating
        direct = [call for call in calls.classification() if call.source in layers.outputs]
        seen.modelled.append(bool(direct))
        calls.let_go()
        return output

    def after(module: LightningModule, _: int) -> None:
        for name, parameter in module.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.any()):
                seen.with_gradient.add(name)

    seen.outcome = trials.run(
        batches, len(batches), step=step, optimizer="held", after=after, deadline=deadline
    )
    return seen


def loss_of(output: Any) -> Tensor | None:  # noqa: ANN401 - a step returns a tensor, a mapping or None
    """Return the loss in what a training step returned; None where there is none."""
    loss = output.get("loss") if isinstance(output, dict) else output
    return loss if isinstance(loss, Tensor) else None


@dataclass
class Layers:
    """What the layers of one forward pass did.

    Args:
        first: What reached the first layer with weights, (N, ...).
        outputs: Identities of the autograd nodes of all layers' outputs.
        evaluating: Names of layers that were in evaluation mode when they were called.
    """

    first: Tensor | None = None
    outputs: set[int] = field(default_factory=set)
    evaluating: set[str] = field(default_factory=set)


@contextmanager
def watched_layers(module: nn.Module) -> Iterator[Layers]:
    """Note what reaches the first layer with weights, which tensors are a layer's output, and the modes."""
    layers = Layers()
    hooks = []

    def before(_: nn.Module, given: tuple[Any, ...]) -> None:
        tensor = next((part for part in given if isinstance(part, Tensor) and part.is_floating_point()), None)
        if layers.first is None and tensor is not None:
            layers.first = tensor.detach().clone()

    def mode(name: str) -> Callable[[nn.Module, Any], None]:
        def note(part: nn.Module, _: Any) -> None:  # noqa: ANN401
            if not part.training:
                layers.evaluating.add(name)

        return note

    def after(_: nn.Module, __: Any, output: Any) -> None:  # noqa: ANN401
        if isinstance(output, Tensor) and output.grad_fn is not None:
            layers.outputs.add(origin_of(output))

    try:
        for name, part in module.named_modules():
            if part is module:
                continue
            hooks.append(part.register_forward_pre_hook(mode(name)))
            if next(part.parameters(recurse=False), None) is not None:
                hooks.append(part.register_forward_pre_hook(before))
            hooks.append(part.register_forward_hook(after))
        yield layers
    finally:
        for hook in hooks:
            hook.remove()
