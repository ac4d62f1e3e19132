"""Are the optimizer's settings within what is used?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .finding import Finding, worst_first

CHECK = "optimizer settings"


def optimizer_settings(groups: Sequence[Mapping[str, Any]], *, decoupled: bool) -> list[Finding]:
    r"""Judge the settings of an optimizer's parameter groups, with their rates at the peak of the schedule.

    Decoupled decay shrinks the weights by :math:`\eta\lambda` a step; coupled decay with momentum
    :math:`\mu` by :math:`\eta\lambda / (1-\mu)`, and in Adam by an amount that is normalised: there
    :math:`\lambda` itself counts.

    Args:
        groups: `optimizer.param_groups`, the entries `lr`, `weight_decay`, `betas`, `momentum`, `eps` and
            `maximize`, where there are such.
        decoupled: Whether the decay is apart from the gradient, as in AdamW and Lion.

    >>> [finding.causes for finding in optimizer_settings([{"lr": 1e-3, "weight_decay": 50}], decoupled=True)]
    [('weight-decay-too-high',)]
    """
    if not groups:
        return [Finding(CHECK, "SKIP", "The optimizer has no parameter groups.")]
    findings = [
        *_rate(groups),
        *_decay(groups, decoupled),
        *_momentum(groups),
        *_sign(groups),
        *_epsilon(groups),
    ]
    rates = [_number(group, "lr") for group in groups]
    done = Finding(CHECK, "PASS", f"The settings of {len(groups)} groups are usual ones.", {"lr": rates})
    return worst_first(findings) or [done]


def _number(group: Mapping[str, Any], name: str) -> float:
    value = group.get(name, 0.0)
    return float(value) if value is not None else 0.0


def _beta(group: Mapping[str, Any]) -> float | None:
    betas = group.get("betas")
    return float(betas[0]) if betas is not None and len(betas) else None


def _rate(groups: Sequence[Mapping[str, Any]]) -> list[Finding]:
    if any("lr" not in group or _number(group, "lr") for group in groups):
        return []
    message = "The learning rate is 0 in all groups; nothing can be learned."
    return [Finding(CHECK, "FAIL", message, {"lr": 0.0}, ("learning-rate-too-low",))]


def _decay(groups: Sequence[Mapping[str, Any]], decoupled: bool) -> list[Finding]:
    worst, where = 0.0, None
    for group in groups:
        rate, decay = _number(group, "lr"), _number(group, "weight_decay")
        adaptive = _beta(group) is not None
        # Healthy at most: Lion 3e-4 × 10 = 3e-3, AdamW 1e-3 × 0.3, SGD 0.1 × 5e-3 / (1 - 0.9) = 5e-3,
        # large batches 3.2 × 1e-4 / (1 - 0.9) = 3.2e-3. The first limit is 4e-3, the second 2e-2.
        if decoupled:
            excess = rate * decay / 4e-3
        elif adaptive:
            excess = decay / 0.999
        else:
            slow = 1 - min(_number(group, "momentum"), 0.99)
            excess = max(rate * decay / slow / 2e-2, decay / 0.999)
        if excess > worst:
            worst, where = excess, group
    if where is None or worst <= 1:
        return []
    rate, decay = _number(where, "lr"), _number(where, "weight_decay")
    evidence = {"lr": rate, "weight_decay": decay, "shrinkage": rate * decay, "decoupled": decoupled}
    times = f"{worst:.2g} times what recipes use at most"
    message = f"Weight decay {decay:.3g} at the learning rate {rate:.3g} is {times}."
    causes = ["weight-decay-too-high"]
    # Recipes go up to AdamW 1e-2 and 0.3, SGD 3.2 (large batches) and 5e-3: what is further out is likelier.
    usual = (1e-2, 0.3) if decoupled or _beta(where) is not None else (3.2, 5e-3)
    if rate > usual[0]:
        causes.insert(0 if rate / usual[0] > decay / usual[1] else 1, "learning-rate-too-high")
    return [Finding(CHECK, "WARN", message, evidence, tuple(causes))]


def _momentum(groups: Sequence[Mapping[str, Any]]) -> list[Finding]:
    momentum = max(_number(group, "momentum") for group in groups)
    beta = max((_beta(group) or 0.0) for group in groups)
    if momentum < 0.999 and beta < 0.995:  # recipes: up to 0.99, and 0.98 in Adan
        return []
    kind, value = ("momentum", momentum) if momentum >= 0.999 else ("the first beta", beta)
    steps = f"over about {1 / (1 - value):.0f} steps" if value < 1 else "for ever"
    message = f"{kind} {value:.4g} averages gradients {steps}; usual are 10 to 20."
    return [Finding(CHECK, "WARN", message[0].upper() + message[1:], {kind: value}, ("momentum-too-high",))]


def _sign(groups: Sequence[Mapping[str, Any]]) -> list[Finding]:
    if not any(group.get("maximize") for group in groups):
        return []
    message = "`maximize=True`: the optimizer climbs the loss; expected to go down."
    return [Finding(CHECK, "WARN", message, {"maximize": True}, ("loss-sign-flipped",))]


def _epsilon(groups: Sequence[Mapping[str, Any]]) -> list[Finding]:
    largest = max((_number(group, "eps") for group in groups if _beta(group) is not None), default=0.0)
    if largest < 0.1:
        return []
    message = f"`eps` is {largest:.3g}, above most gradients, which slows adaptive steps; 1e-8 is usual."
    return [Finding(CHECK, "INFO", message, {"eps": largest}, ("optimizer-settings",))]
