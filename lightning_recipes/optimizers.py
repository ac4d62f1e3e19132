"""What an optimizer is given: parameters in groups."""

from __future__ import annotations

from typing import Any

from torch import nn


def decayed_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are to be kept small, by name: kernels and matrices, frozen ones too.

    Biases, norms and other parameters with fewer than two dimensions are left out, and so are those that a
    submodule names in its `no_weight_decay()` (timm: position embeddings, class tokens).

    Args:
        module: Any module; a parameter that is shared counts once.

    >>> list(decayed_weights(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))))
    ['0.weight']
    """
    exempt: set[str] = set()
    for prefix, child in module.named_modules():
        names = getattr(child, "no_weight_decay", None)
        if callable(names):
            exempt |= {f"{prefix}.{name}".lstrip(".") for name in names()}
    return {name: p for name, p in module.named_parameters() if p.ndim >= 2 and name not in exempt}


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return the trainable parameters as two groups: `decay`, and `no_decay` with weight decay 0.

    What is decayed is what `decayed_weights` returns. The first group leaves `weight_decay` to the
    optimizer. Empty groups are left out.

    Args:
        module: Any module; a parameter that is shared counts once.

    Source: He et al., "Bag of Tricks for Image Classification", 2019, section 3.1.

    >>> [
    ...     (g["name"], len(g["params"]))
    ...     for g in parameter_groups(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
    ... ]
    [('decay', 1), ('no_decay', 3)]
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    decayed = {id(weight) for weight in decayed_weights(module).values()}
    decay = [parameter for parameter in parameters if id(parameter) in decayed]
    no_decay = [parameter for parameter in parameters if id(parameter) not in decayed]
    groups: list[dict[str, Any]] = [
        {"name": "decay", "params": decay},
        {"name": "no_decay", "params": no_decay, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
