"""Which modules and functions are activations, and what bounds their outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

_FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "relu": (F.relu, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    "leaky_relu": (F.leaky_relu, F.leaky_relu_, F.prelu, F.rrelu, torch.prelu, Tensor.prelu),
    "elu": (F.elu, F.elu_, F.selu, F.selu_, F.celu, torch.selu, torch.selu_, torch.celu),
    "gelu": (F.gelu,),
    "silu": (F.silu, F.mish),
    "hardswish": (F.hardswish,),
    "sigmoid": (torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, torch.special.expit),
    "hardsigmoid": (F.hardsigmoid,),
    "tanh": (torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_),
    "hardtanh": (F.hardtanh,),
    "softsign": (F.softsign,),
    "softplus": (F.softplus,),
}
_KIND_OF_FUNCTION = {function: kind for kind, group in _FUNCTIONS.items() for function in group}
_CLAMPS = {
    torch.clamp,
    torch.clamp_,
    torch.clip,
    torch.clamp_min,
    torch.clamp_min_,
    Tensor.clamp,
    Tensor.clamp_,
    Tensor.clip,
    Tensor.clamp_min,
    Tensor.clamp_min_,
}
MULTIPLICATIONS = {torch.mul, torch.multiply, Tensor.mul, Tensor.mul_, Tensor.multiply, Tensor.multiply_}

BOUNDS = {"sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0)} | dict.fromkeys(
    ("tanh", "hardtanh", "softsign"), (-1.0, 1.0)
)


def kind_of_module(module: nn.Module) -> str | None:
    """Return the kind of an activation module, by the name of its class or of one it derives from.

    >>> kind_of_module(nn.ReLU6()), kind_of_module(nn.Linear(1, 1))
    ('relu', None)
    """
    kinds = (_KIND_OF_CLASS.get(kind.__name__) for kind in type(module).__mro__)
    return next((kind for kind in kinds if kind), None)


def kind_of_call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return the kind of an activation that is called as a function; `clamp(min=0)` is a ReLU.

    >>> kind_of_call(F.gelu, (), {}), kind_of_call(torch.clamp, (torch.ones(1),), {"min": 0})
    ('gelu', 'relu')
    >>> kind_of_call(torch.clamp, (torch.ones(1), 0, 1), {}) is None
    True
    """
    if function in _CLAMPS:
        lowest = kwargs.get("min", args[1] if len(args) > 1 else None)
        highest = kwargs.get("max", args[2] if len(args) > 2 else None)
        number = isinstance(lowest, (int, float)) and not isinstance(lowest, bool)
        return "relu" if number and lowest == 0 and highest is None else None
    return _KIND_OF_FUNCTION.get(function)
