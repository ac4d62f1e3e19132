"""Initialization of weights by rule and by name."""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Literal, get_args

from torch import Generator, nn

from ..utils.errors import UserError, did_you_mean
from .layers import Layer, draw_weight, fan_in, matched_layers

Nonlinearity = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
Scheme = Literal["zeros", "normal", "xavier", "glorot", "kaiming", "orthogonal"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
_GAINS: tuple[str, ...] = get_args(Nonlinearity)


def initialize(
    module: nn.Module,
    scheme: Scheme,
    *,
    pattern: str = "*",
    std: float = 0.01,
    nonlinearity: Nonlinearity = "relu",
    generator: Generator | None = None,
) -> list[str]:
    r"""Set the weights of linear layers and (transposed) convolutions by a rule, and their biases to 0.

    With :math:`D_\text{in}` the number of inputs that an output sums, :math:`k^2 C_\text{in}/\text{groups}`
    for a convolution:

    ============ =============================================================================
    `zeros`      0
    `normal`     normal, `std`: small random numbers
    `xavier`     normal, :math:`1/\sqrt{D_\text{in}}`: keeps the variance of a linear layer
    `glorot`     normal, :math:`\sqrt{2/(D_\text{in}+D_\text{out})}`: torch's `xavier_normal_`
    `kaiming`    normal, :math:`\text{gain}/\sqrt{D_\text{in}}`: keeps it through a ReLU, whose gain is √2
    `orthogonal` orthonormal rows or columns
    ============ =============================================================================

    Norms and all other parameters stay as they are, among them the `in_proj_weight` of torch's
    `MultiheadAttention`. Parametrized weights are set through their parametrization.

    Args:
        module: The network, changed in place.
        scheme: A rule.
        pattern: Which layers, by name, as a shell has it: `layer3.*`, `*.conv2`.
        std: Standard deviation of `normal`.
        nonlinearity: That follows, for the gain of `kaiming`: relu, leaky_relu, tanh, selu, sigmoid, linear.
        generator: Of the random numbers; by default torch's.

    Returns:
        The names of the layers.

    Raises:
        UserError: An unknown scheme or nonlinearity, a pattern that matches no layer, or a weight that cannot
            be set.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010; He et al., "Delving Deep into Rectifiers", 2015; Saxe et al., "Exact solutions to the nonlinear
    dynamics of learning in deep linear neural networks", 2014.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> initialize(net, "kaiming"), initialize(net, "zeros", pattern="3")
    (['0', '3'], ['3'])
    """
    if scheme not in SCHEMES:
        listed = ", ".join(SCHEMES)
        raise UserError(f"`scheme` must be one of {listed}, got {scheme!r}.{did_you_mean(scheme, SCHEMES)}")
    if nonlinearity not in _GAINS:
        raise UserError(
            f"`nonlinearity` must be one of {', '.join(_GAINS)}, got {nonlinearity!r}."
            f"{did_you_mean(nonlinearity, _GAINS)} For GELU and SiLU take relu."
        )
    if not std > 0:
        raise UserError(f"`std` must be above 0, got {std}. For zeros, take the scheme `zeros`.")
    layers = matched_layers(module, pattern)
    for layer in layers.values():
        _set(layer, scheme, std, nonlinearity, generator)
    return list(layers)


def _set(
    layer: Layer, scheme: str, std: float, nonlinearity: Nonlinearity, generator: Generator | None
) -> None:
    normal = partial(nn.init.normal_, generator=generator)
    root = sqrt(fan_in(layer))
    if scheme == "zeros":
        draw_weight(layer, nn.init.zeros_, generator)
    elif scheme == "normal":
        draw_weight(layer, partial(normal, std=std), generator)
    elif scheme == "xavier":
        draw_weight(layer, partial(normal, std=1 / root), generator)
    elif scheme == "glorot":
        draw_weight(layer, partial(nn.init.xavier_normal_, generator=generator), generator)
    elif scheme == "kaiming":
        gain = nn.init.calculate_gain(nonlinearity)
        draw_weight(layer, partial(normal, std=gain / root), generator)
    else:
        draw_weight(layer, partial(nn.init.orthogonal_, generator=generator), generator)
