"""The learning rates of all optimizers' groups."""

from __future__ import annotations

from lightning.pytorch import Trainer

Rates = list[list[float]]  # of each optimizer's groups


def current_rates(trainer: Trainer) -> Rates:
    """Return the rates as they are."""
    return [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in trainer.optimizers]


def initial_rates(trainer: Trainer) -> Rates:
    """Return the rates that the optimizers were made with: what a schedule scales."""
    return [
        [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        for optimizer in trainer.optimizers
    ]


def set_rates(trainer: Trainer, rates: Rates) -> None:
    """Set the rates; those of a group that came later stay."""
    for optimizer, values in zip(trainer.optimizers, rates, strict=True):
        for group, value in zip(optimizer.param_groups, values, strict=False):
            group["lr"] = value


def largest(rates: Rates) -> float:
    """Return the largest of all rates; 0 where there is none."""
    return max((rate for group in rates for rate in group), default=0.0)


def in_proportion(initial: Rates, highest: float) -> Rates:
    """Return the rates whose largest is `highest`, in the ratios of `initial`.

    >>> in_proportion([[0.5, 0.25]], 1.0)
    [[1.0, 0.5]]
    """
    top = largest(initial)
    return [[highest * rate / top if top else highest for rate in rates] for rates in initial]
