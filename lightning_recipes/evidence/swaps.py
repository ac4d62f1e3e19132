"""What can be exchanged in a copy, one thing at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from .trials import optimizers_of


def standardized(inputs: Tensor) -> Tensor:
    """Return inputs with mean 0 and standard deviation 1 by channel, those that are not finite set to 0.

    Args:
        inputs: (N, C, ...) or (N, D); what is not finite is set to 0 before the standardisation.
    """
    finite = torch.where(inputs.isfinite(), inputs, torch.zeros_like(inputs))
    dims = [0, *range(2, inputs.dim())]
    mean = finite.mean(dims, keepdim=True)
    return (finite - mean) / finite.std(dims, keepdim=True).clamp_min(1e-6)


@torch.no_grad()
def kaiming(module: nn.Module) -> None:
    """Initialise all weights anew with variance 2 / fan-in, biases with 0, norms with 1 and 0.

    Source: He et al., "Delving Deep into Rectifiers", 2015.
    """
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.dim() > 1 and parameter[0].numel():
                nn.init.kaiming_normal_(parameter)
            elif name.endswith("bias"):
                parameter.zero_()
            elif name == "weight":
                parameter.fill_(1.0)


def without_regularization(module: LightningModule) -> None:
    """Switch dropout, stochastic depth and weight decay off."""
    for part in module.modules():
        for key in ("p", "drop_prob", "dropout"):
            if isinstance(getattr(part, key, None), float):
                setattr(part, key, 0.0)
    for group in (g for optimizer in optimizers_of(module) for g in optimizer.param_groups):
        for key in ("weight_decay", "lambd"):
            if key in group:
                group[key] = 0.0


def thawed(module: LightningModule) -> None:
    """Train all weights, also those that are frozen or that no optimizer holds."""
    optimizers = optimizers_of(module)
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    missing = [p for p in module.parameters() if id(p) not in held]
    if missing and optimizers:
        optimizers[0].add_param_group({"params": missing})


PREPARE: dict[str, Callable[[LightningModule], None]] = {
    "initialization": kaiming,
    "regularization": without_regularization,
    "frozen weights": thawed,
}
