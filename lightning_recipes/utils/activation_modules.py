"""Which modules are activations."""

from __future__ import annotations

from torch import nn

# By the name of the class, so that timm's and a user's own are known without importing them.
_CLASSES = {
    "relu": ("ReLU", "ReLU6", "SquaredReLU", "ReluSquared"),
    "leaky_relu": ("LeakyReLU", "PReLU", "RReLU"),
    "elu": ("ELU", "CELU", "SELU"),
    "gelu": ("GELU", "GELUTanh", "QuickGELU", "GeluTanh", "QuickGelu"),
    "silu": ("SiLU", "Swish", "SwishMe", "Mish", "MishMe"),
    "hardswish": ("Hardswish", "HardSwish", "HardSwishMe", "HardMish", "HardMishMe"),
    "sigmoid": ("Sigmoid",),
    "hardsigmoid": ("Hardsigmoid", "HardSigmoid", "HardSigmoidMe"),
    "tanh": ("Tanh",),
    "hardtanh": ("Hardtanh",),
    "softsign": ("Softsign",),
    "softplus": ("Softplus",),
}
_KIND_OF_CLASS = {name: kind for kind, names in _CLASSES.items() for name in names}


def kind_of_module(module: nn.Module) -> str | None:
    """Return the kind of an activation module, by the name of its class or of one it derives from.

    >>> kind_of_module(nn.ReLU6()), kind_of_module(nn.Linear(1, 1))
    ('relu', None)
    """
    kinds = (_KIND_OF_CLASS.get(kind.__name__) for kind in type(module).__mro__)
    return next((kind for kind in kinds if kind), None)
