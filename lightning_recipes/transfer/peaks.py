"""Schedulers that bring rates of their own, and so lose the ratios between the groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import SWALR

from ..utils.errors import UserError
from .rates import Cut


def scale_peaks(schedulers: Iterable[LRScheduler], cuts: Sequence[Cut]) -> None:
    """Scale the rates that a scheduler has brought along for all groups, as `OneCycleLR` does.

    Most schedulers multiply the rates that the groups have. `OneCycleLR` and `CyclicLR` set them to a peak of
    their own, `SWALR` to a last rate, and `ReduceLROnPlateau` has a floor: where it is one for all groups,
    each gets its share. Rates that were given group by group stay.

    Args:
        schedulers: New ones.
        cuts: The optimizers' groups, as `layerwise_rates` gives them.

    Raises:
        UserError: A scheduler's least rate, which is one for all groups, lies above a group's rate.
    """
    done: list[Optimizer] = []
    for scheduler in schedulers:
        groups = scheduler.optimizer.param_groups
        scales = [next((cut.scale for cut in cuts if cut.group is group), 1.0) for group in groups]
        if all(scale == 1 for scale in scales):
            continue
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.min_lrs = _scaled(scheduler.min_lrs, scales)
            continue
        floor = getattr(scheduler, "eta_min", 0.0)
        least = min(group.get("initial_lr", group["lr"]) for group in groups)
        if floor > 0 and floor >= least:
            raise UserError(
                f"`eta_min` of {type(scheduler).__name__} must lie below the rates of all layers, got "
                f"{floor}: the lowest ones begin at {least:.3g} and would rise. Set it to 0."
            )
        if isinstance(scheduler, SWALR):
            for group, rate in zip(groups, _scaled([g["swa_lr"] for g in groups], scales), strict=True):
                group["swa_lr"] = rate
        if isinstance(scheduler, CyclicLR):
            scheduler.base_lrs = _scaled(scheduler.base_lrs, scales)
            scheduler.max_lrs = _scaled(scheduler.max_lrs, scales)
        if isinstance(scheduler, (OneCycleLR, CyclicLR)) and scheduler.optimizer not in done:
            done.append(scheduler.optimizer)
            for key in ("lr", "initial_lr", "max_lr", "min_lr"):
                if all(key in group for group in groups):
                    for group, rate in zip(groups, _scaled([g[key] for g in groups], scales), strict=True):
                        group[key] = rate
            scheduler._last_lr = [group["lr"] for group in groups]


def schedulers_of(configured: object) -> Iterator[LRScheduler]:
    """Yield the schedulers, also those within others, of what a module's `configure_optimizers` returns."""
    if isinstance(configured, LRScheduler):
        yield configured
        configured = getattr(configured, "_schedulers", ())
    if isinstance(configured, Mapping):
        configured = list(configured.values())
    if isinstance(configured, (list, tuple)):
        for part in configured:
            yield from schedulers_of(part)


def _scaled(rates: Sequence[Any], scales: Sequence[float]) -> list[Any]:
    """Return each rate times its scale where those with one are the head's, and as they are where not.

    Others may differ: those of a second backbone, which has had its share.

    >>> _scaled([0.5, 0.5], [1.0, 0.5]), _scaled([0.5, 0.25], [1.0, 0.5])
    ([0.5, 0.25], [0.5, 0.25])
    >>> _scaled([0.5, 0.25, 0.5], [1.0, 1.0, 0.5])
    [0.5, 0.25, 0.25]
    """
    ours = [rate for rate, scale in zip(rates, scales, strict=True) if scale != 1]
    others = [rate for rate, scale in zip(rates, scales, strict=True) if scale == 1]
    if any(rate != ours[0] for rate in ours) or (ours and others and ours[0] not in others):
        return list(rates)
    return [rate * scale for rate, scale in zip(rates, scales, strict=True)]
