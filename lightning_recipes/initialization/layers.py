"""The layers whose weights are initialised: by name, with their fan-in, and how a weight is set."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeAlias

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from ..utils.errors import UserError
from ..utils.patterns import matching

Layer: TypeAlias = nn.Linear | _ConvNd


def matched_layers(module: nn.Module, pattern: str) -> dict[str, Layer]:
    """Return the linear layers and (transposed) convolutions whose names match, in the order of the module.

    Args:
        module: The network.
        pattern: As a shell has it: `*` any characters, `?` one, `[ab]` one of these.

    Raises:
        UserError: No layer matches, or the weights of one are not there yet or are computed from others.

    >>> list(matched_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), "2"))
    ['2']
    """
    layers = {name: part for name, part in module.named_modules() if isinstance(part, (nn.Linear, _ConvNd))}
    found = matching(layers, pattern, what="linear layers and convolutions")
    for name, layer in found.items():
        if isinstance(layer.weight, nn.parameter.UninitializedParameter):
            raise UserError(
                f"The layer {name!r} has no weights before its first batch. Run one through the network."
            )
        if "weight" not in layer._parameters and not is_parametrized(layer, "weight"):
            raise UserError(
                f"The weight of {name!r} is computed anew in each forward pass, by a hook such as "
                "`torch.nn.utils.weight_norm`. Initialize before it is put on, or use "
                "`torch.nn.utils.parametrizations`."
            )
    return found


def fan_in(layer: Layer) -> float:
    r"""Return :math:`D_\text{in}`, the number of inputs that an output of the layer sums.

    Of a convolution :math:`k^2 C_\text{in} / \text{groups}`; of a transposed one, whose inputs lie `stride`
    apart, :math:`k^2 C_\text{in} / (\text{groups} \cdot \text{stride}^2)` on average.

    >>> fan_in(nn.Linear(8, 4)), fan_in(nn.Conv2d(8, 4, 3, groups=2)), fan_in(nn.ConvTranspose2d(8, 4, 2, 2))
    (8.0, 36.0, 8.0)
    """
    if isinstance(layer, _ConvTransposeNd):
        return layer.in_channels / layer.groups * prod(layer.kernel_size) / prod(layer.stride)
    return float(prod(layer.weight.shape[1:]))


@torch.no_grad()
def draw_weight(layer: Layer, fill: Callable[[Tensor], object], generator: Generator | None = None) -> None:
    """Fill a tensor with random numbers and copy it into the layer's weight; set the bias to 0.

    Args:
        layer: Its weight may be parametrized.
        fill: Fills a tensor of the weight's shape in place. It is float32 at least (of a half-precision
            weight, too), and lies where the generator does, else where the weight does.
        generator: Of the random numbers.

    Raises:
        UserError: The parametrization allows no such weight.
    """
    weight = layer.weight
    kind = weight.dtype if weight.dtype == torch.float64 else torch.float32
    values = torch.empty(
        weight.shape, dtype=kind, device=weight.device if generator is None else generator.device
    )
    fill(values)
    set_weight(layer, values)
    if layer.bias is not None:
        layer.bias.zero_()


@torch.no_grad()
def set_weight(layer: nn.Module, values: Tensor) -> None:
    """Copy values into the weight of a layer, through its parametrization where it has one.

    Raises:
        UserError: The parametrization allows no such weight; it is left as it was.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if not is_parametrized(layer, "weight"):
        weight.copy_(values)
        return
    own = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    try:
        layer.weight = values.to(weight)
        computed = layer.weight
        assert isinstance(computed, Tensor)
        reason = "" if bool(computed.isfinite().all()) else "it is no longer finite"
    except (NotImplementedError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
    if reason:
        layer.load_state_dict(own)
        raise UserError(
            f"A parametrized weight cannot be set: {reason}. Initialize before the parametrization is put on."
        )
