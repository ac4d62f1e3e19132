"""The layers: modes, dropout, weights as they were made, activations, gradients over depth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from ..checks import Finding
from ..checks.dead_units import dead_units
from ..checks.dropout import dropout
from ..checks.initial_weights import initial_weights
from ..checks.modes import modes
from ..checks.saturation import saturation
from ..evidence.activation_sums import LayerActivations
from ..evidence.activations import ActivationRecord, recording
from ..evidence.trials import CannotTry
from ..evidence.weights import layer_weights
from .examination import Examination

SUSPICIOUS = 0.5  # dead fraction from which a second observation is worth its time


def settings(examination: Examination) -> Iterator[Finding]:
    """Dropout that is too strong, and layers in the wrong mode."""
    yield dropout(dropout_rates(examination.module))
    called = examination.first.evaluating if examination.first is not None else set()
    wrong, total = wrong_modes(examination.module, called)
    yield modes(wrong, total)


def weights(examination: Examination) -> Iterator[Finding]:
    """The size of the weights before the first step."""
    yield initial_weights(layer_weights(examination.module), pretrained=examination.trained)


def activations(examination: Examination) -> Iterator[Finding]:
    """Units that are dead or at their bounds, over the first batches.

    Raises:
        ValueError: The first step did not work.
    """
    seen = examination.first
    if seen is None or not seen.losses:
        raise CannotTry("the first step did not work")
    read = seen.activations.read()
    mortal = [layer for layer in read if layer.can_die]
    observed = {layer.name: [layer.dead - layer.silent] for layer in mortal}
    if any(fractions[0] >= SUSPICIOUS for fractions in observed.values()):
        for layer in _again(examination):
            if layer.name in observed:
                observed[layer.name].append(layer.dead - layer.silent)
    samples = min((layer.unit_samples for layer in mortal), default=0)
    yield dead_units(observed, units={layer.name: layer.units for layer in mortal}, samples=samples)
    bounded = [layer for layer in read if layer.saturated is not None and layer.hidden and not layer.gate]
    yield saturation(
        {layer.name: layer.saturated for layer in bounded if layer.saturated is not None},
        {layer.name: layer.spread for layer in bounded},
    )


def _again(examination: Examination) -> Sequence[LayerActivations]:
    """Return the activations after a few steps."""
    record = ActivationRecord()
    batches = examination.train.batches

    def step(module: LightningModule, own: Any, batch: Any, number: int) -> Any:  # noqa: ANN401
        if number < len(batches):
            return own(batch)
        with torch.no_grad(), recording(module, record):
            own(batch)
        return None

    if examination.module.automatic_optimization:
        examination.trials.run(
            batches, 2 * len(batches), step=step, deadline=examination.until("second look")
        )
    return record.read()


def dropout_rates(module: nn.Module) -> Mapping[str, float]:
    """Return the probability to drop of each dropout, drop-path and attention layer, by name."""
    rates: dict[str, float] = {}
    for name, part in module.named_modules():
        for key in ("p", "drop_prob"):
            value: Any = getattr(part, key, None)
            if isinstance(value, float) and "drop" in type(part).__name__.lower():
                rates[name] = value
        if isinstance(part, (nn.MultiheadAttention, nn.RNNBase)) and part.dropout:
            rates[name] = float(part.dropout)
    return rates


def wrong_modes(
    module: nn.Module, called: Collection[str] = (), *, training: bool = True
) -> tuple[list[str], int]:
    """Return the names of norms and dropouts in the wrong mode, and how many there are that matter.

    Norms without running statistics do the same in both modes; layers of a part that is wholly frozen may
    evaluate, and so may what is switched off.

    Args:
        module: Between two steps.
        called: Names of layers that were in the wrong mode when they were called.
        training: Whether training is the right mode.
    """
    frozen = [
        name
        for name, part in module.named_modules()
        if name and list(part.parameters()) and not any(p.requires_grad for p in part.parameters())
    ]
    matter = {}
    for name, part in module.named_modules():
        drops = dropout_rates(part).get("", 0.0) > 0
        tracks = getattr(part, "running_mean", None) is not None
        if (drops or tracks) and not any(name == f or name.startswith(f + ".") for f in frozen):
            matter[name] = part
    return [name for name, part in matter.items() if part.training is not training or name in called], len(
        matter
    )
