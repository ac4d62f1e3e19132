"""What can be read off without running anything: parameters, optimizers, schedule, dropout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..checks import Finding
from ..checks.dropout import dropout
from ..checks.modes import modes
from ..checks.optimizer_settings import optimizer_settings
from ..checks.parameters import coverage
from ..checks.schedule import schedule
from ..evidence.rates import simulated_rates
from ..evidence.trials import peak_rate
from ..evidence.weights import looks_untrained
from .examination import Examination

DECOUPLED = ("AdamW", "NAdamW", "Lion", "SGDW", "AdamP", "Adafactor", "LaProp", "MADGRAD", "Muon")


def parameters(examination: Examination) -> Iterator[Finding]:
    """Which parameters are trained: the optimizers' against the module's, and those that are frozen."""
    module, optimizers = examination.module, examination.trainer.optimizers
    named = dict(module.named_parameters())
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    frozen = {name: p.numel() for name, p in named.items() if not p.requires_grad}
    yield from coverage(
        {name: p.numel() for name, p in named.items() if p.requires_grad},
        [name for name, p in named.items() if id(p) in held],
        stale=len(held - {id(p) for p in named.values()}),
        frozen=frozen,
        frozen_untrained=looks_untrained(module, names=frozen) if frozen else None,
    )


def optimizers(examination: Examination) -> Iterator[Finding]:
    """Rate, decay and momentum of each optimizer, at the peak of its schedule."""
    for optimizer in examination.trainer.optimizers:
        groups = [{**group, "lr": peak_rate(group)} for group in optimizer.param_groups]
        yield from optimizer_settings(groups, decoupled=decouples(optimizer))


def schedules(examination: Examination) -> Iterator[Finding]:
    """The learning rate over the whole run."""
    rates = simulated_rates(examination.trainer)
    if isinstance(rates, str):
        yield Finding("schedule", "SKIP", rates)
        return
    yield schedule(rates)


def layers(examination: Examination) -> Iterator[Finding]:
    """Dropout that is too strong, and layers in the wrong mode."""
    yield dropout(dropout_rates(examination.module))
    wrong, total = wrong_modes(examination.module, training=True)
    yield modes(wrong, total)


def decouples(optimizer: Optimizer) -> bool:
    """Return whether an optimizer's weight decay is apart from its gradient."""
    name = type(optimizer).__name__
    flags = [
        group.get("decoupled_weight_decay", group.get("decoupled_decay")) for group in optimizer.param_groups
    ]
    return any(flags) or name in DECOUPLED or name.endswith("W")


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


def wrong_modes(module: nn.Module, *, training: bool) -> tuple[list[str], int]:
    """Return the names of norms and dropouts in the wrong mode, and how many there are that matter.

    Norms without running statistics do the same in both modes; layers of a part that is wholly frozen may
    evaluate, and so may what is switched off.
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
    return [name for name, part in matter.items() if part.training is not training], len(matter)
