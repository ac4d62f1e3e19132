"""Which functions are activations, and what bounds their outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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
