"""Exchange the activations of a network that is built."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import nn

from ..utils.activation_modules import kind_of_module
from ..utils.errors import UserError, did_you_mean

_USUAL = ["elu", "gelu", "leaky_relu", "mish", "prelu", "relu", "selu", "sigmoid", "silu", "tanh"]
_BOUNDED = frozenset({"sigmoid", "hardsigmoid", "tanh"})
_FURTHER = frozenset({"StarReLU"})  # of which no layer's figures are known
_SCALED = "GammaAct"  # timm's, for networks without norms
_GATE = "gate"  # in the name of a module: timm's for the sigmoid of an attention over channels


def activation_class(act: str) -> type[nn.Module]:
    """Return the class of timm's activation of that name.

    Raises:
        UserError: timm has no such activation.

    >>> activation_class("silu")
    <class 'torch.nn.modules.activation.SiLU'>
    """
    from timm.layers.create_act import get_act_layer  # slow to import

    layer: type[nn.Module] | None = None
    with suppress(KeyError):
        layer = get_act_layer(act)
    if layer is None:
        raise UserError(
            f"timm has no activation {act!r}. Usual are {', '.join(_USUAL)}.{did_you_mean(act, _USUAL)}"
        )
    return layer


def swap_activations(module: nn.Module, act: str) -> list[str]:
    """Replace every activation module of a network by another one.

    Gates and outputs are none: a sigmoid or tanh is left alone where the network has other activations
    (the sigmoids of squeeze-and-excitation, the last one of a binary classifier), or where `gate` is in its
    name. In a network that has no others, they are its activations. A module that is used in several places
    stays one module. What is computed by a function (`F.relu(x)`) cannot be replaced.

    Args:
        module: The network, changed in place; the new modules work in place where the old ones do. An
            activation with weights of its own (`prelu`) has to be there before the optimizer is made.
        act: A name that timm knows: relu, leaky_relu, elu, gelu, silu, …

    Returns:
        The names of the modules that `act` has replaced.

    Raises:
        UserError: An unknown name, a network without activation modules, or one that scales them.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 1), nn.Sigmoid())
    >>> swap_activations(net, "silu"), net[1], net[3]
    (['1'], SiLU(inplace=True), Sigmoid())
    """
    wanted = activation_class(act)
    parts = {name: part for name, part in module.named_modules() if name}
    if any(type(part).__name__ == _SCALED for part in parts.values()):
        raise UserError(
            f"{type(module).__name__} scales its activations by factors that belong to one function "
            f"({_SCALED}). Leave `act` out, or take a network with norms."
        )
    kinds = {name: kind for name, part in parts.items() if (kind := _kind(part)) is not None}
    free = [name for name, kind in kinds.items() if kind not in _BOUNDED]
    names = free or [name for name in kinds if _GATE not in name.rpartition(".")[2]]
    if not names:
        raise UserError(
            f"{type(module).__name__} has no activation modules to replace by {act!r}. Where it calls "
            "functions such as `F.relu`, give it modules such as `nn.ReLU()`."
        )
    made = {id(parts[name]): _made(wanted, parts[name], module) for name in names}
    for parent in list(module.modules()):
        for key, child in parent._modules.items():
            if id(child) in made:
                parent._modules[key] = made[id(child)]
    return names


def _kind(part: nn.Module) -> str | None:
    return type(part).__name__ if type(part).__name__ in _FURTHER else kind_of_module(part)


def _made(wanted: type[nn.Module], old: nn.Module, module: nn.Module) -> nn.Module:
    if type(old) is wanted:
        return old
    from timm.layers.create_act import create_act_layer

    new: nn.Module = create_act_layer(wanted, inplace=getattr(old, "inplace", None))
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    return new.to(like.device, like.dtype).train(old.training)
