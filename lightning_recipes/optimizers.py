"""What an optimizer is given: parameters in groups."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return the trainable parameters as two groups: `decay`, and `no_decay` with weight decay 0.

    Biases, norms and other parameters with fewer than two dimensions are not decayed, nor are those that a
    submodule names in its `no_weight_decay()` (timm: position embeddings, class tokens). The first group
    leaves `weight_decay` to the optimizer. Empty groups are left out.

    Args:
        module: Any module; a parameter that is shared counts once.

    Source: He et al., "Bag of Tricks for Image Classification", 2019, section 3.1.

    >>> [
    ...     (g["name"], len(g["params"]))
    ...     for g in parameter_groups(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
    ... ]
    [('decay', 1), ('no_decay', 3)]
    """
    exempt: set[str] = set()
    for prefix, child in module.named_modules():
        names = getattr(child, "no_weight_decay", None)
        if callable(names):
            exempt |= {f"{prefix}.{name}".lstrip(".") for name in names()}
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (no_decay if parameter.ndim < 2 or name in exempt else decay).append(parameter)
    groups: list[dict[str, Any]] = [
        {"name": "decay", "params": decay},
        {"name": "no_decay", "params": no_decay, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
