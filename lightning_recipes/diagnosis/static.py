"""What can be read off without running anything: parameters, optimizers, schedule."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.optim import Optimizer

from ..checks import Finding
from ..checks.optimizer_settings import optimizer_settings
from ..checks.parameters import coverage
from ..checks.schedule import schedule
from ..evidence.freshness import looks_untrained
from ..evidence.rates import simulated_rates
from ..evidence.trials import peak_rate
from .examination import Examination

DECOUPLED = ("AdamW", "NAdamW", "Lion", "SGDW", "AdamP", "Adafactor", "LaProp", "MADGRAD", "Muon")


def parameters(examination: Examination) -> Iterator[Finding]:
    """Which parameters are trained: the optimizers' against the module's, and those that are frozen."""
    module, optimizers = examination.module, examination.trainer.optimizers
    named = dict(module.named_parameters())
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    frozen = {name: p.numel() for name, p in named.items() if not p.requires_grad}
    moved: set[str] = set()
    for seen in (examination.first, examination.pace):
        moved |= seen.with_gradient if seen is not None else set()
    pace = examination.pace
    looked = pace is not None and pace.steps >= 3 and not pace.cleared
    trainable = {name: p.numel() for name, p in named.items() if p.requires_grad}
    yield from coverage(
        trainable | hidden_parameters(module),
        [name for name, p in named.items() if id(p) in held],
        without_gradient=[n for n, p in named.items() if p.requires_grad and n not in moved]
        if looked
        else [],
        stale=len(held - {id(p) for p in named.values()}),
        frozen=frozen,
        frozen_untrained=looks_untrained(module, names=frozen) if frozen else None,
    )


def hidden_parameters(module: nn.Module) -> dict[str, int]:
    """Return the sizes of parameters of layers in plain lists and dicts, which no module knows of.

    >>> module = nn.Module()
    >>> module.layers = [nn.Linear(2, 3, bias=False)]
    >>> hidden_parameters(module)
    {'layers[0].weight': 6}
    """
    known = {id(p) for p in module.parameters()}
    hidden = {}
    for path, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute.startswith("_") or not isinstance(value, (list, tuple, dict)):
                continue
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            for key, layer in entries:
                if isinstance(layer, nn.Module):
                    place = f"{path}.{attribute}" if path else attribute
                    for name, p in layer.named_parameters():
                        if id(p) not in known and p.requires_grad:
                            hidden[f"{place}[{key!r}].{name}"] = p.numel()
    return hidden


def optimizers(examination: Examination) -> Iterator[Finding]:
    """Rate, decay and momentum of each optimizer, at the peak of its schedule."""
    for optimizer in examination.trainer.optimizers:
        groups = [{**group, "lr": peak_rate(group)} for group in optimizer.param_groups]
        yield from optimizer_settings(groups, decoupled=decouples(optimizer))


def schedules(examination: Examination) -> Iterator[Finding]:
    """The learning rate over the whole run."""
    rates = simulated_rates(examination.trainer)
    if isinstance(rates, str):
        yield Finding("schedule", "SKIP", f"The schedule is not simulated: {rates}.")
        return
    yield schedule(rates)


def decouples(optimizer: Optimizer) -> bool:
    """Return whether an optimizer's weight decay is apart from its gradient.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    """
    name = type(optimizer).__name__
    flags = [
        group.get("decoupled_weight_decay", group.get("decoupled_decay")) for group in optimizer.param_groups
    ]
    return any(flags) or name in DECOUPLED or name.endswith("W")
