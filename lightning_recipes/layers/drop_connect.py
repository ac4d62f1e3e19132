"""DropConnect: weights, not units, are dropped while training."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..utils.errors import UserError
from ..utils.patterns import matching_layers

_KINDS = (nn.Linear, nn.Conv2d)
_ATTRIBUTE = "_drop_connect"  # where a layer keeps its own


class DropConnect:
    """Zeroes each weight of one layer with probability p in every forward pass of training.

    The others are scaled by 1/(1 − p), so that the mean of the layer's output is what evaluation gives, where
    all weights are used as they are. One mask serves the whole batch. It lasts for the forward pass: whoever
    reads `layer.weight` at any other time finds the parameter, and names, classes, pickles and checkpoints
    are those of the layer without it.

    Args:
        layer: Has a parameter `weight`; any subclass will do, for its own `forward` is called.
        p: Probability to drop, in [0, 1).

    Source: Wan et al., "Regularization of Neural Networks using DropConnect", 2013.
    """

    def __init__(self, layer: nn.Module, p: float) -> None:
        self.p = p
        self._handles = [
            layer.register_forward_pre_hook(self._mask),
            layer.register_forward_hook(self._unmask, always_call=True),
        ]

    def _mask(self, layer: nn.Module, _: Any) -> None:  # noqa: ANN401 - the arguments of its forward
        weight = layer._parameters["weight"]
        if layer.training and weight is not None:
            vars(layer)["weight"] = F.dropout(weight, self.p)  # goes before the parameter of this name

    def _unmask(self, layer: nn.Module, *_: Any) -> None:  # noqa: ANN401 - its arguments and its output
        vars(layer).pop("weight", None)

    def remove(self) -> None:
        """Leave the layer as it was."""
        while self._handles:
            self._handles.pop().remove()


def drop_connect(module: nn.Module, p: float = 0.5, *, pattern: str = "*") -> list[str]:
    """Have the linear and 2-d convolution layers that a pattern matches drop weights while training.

    A layer that does so already takes the new probability. The inner projection of `nn.MultiheadAttention`,
    whose `forward` nobody calls, is left out. Of a layer whose weight its parent reads without calling it
    (the `qkv` of timm's BEiT, EVA and Swin v2) nothing is dropped, though its name is returned.

    Args:
        module: Is changed.
        p: Probability to drop a weight, in [0, 1). 0.5 is the paper's, for large fully connected layers.
        pattern: Names of layers, as `named_modules()` has them: `head`, `layer4.*`, `*.conv2`.

    Returns:
        The names of the layers.

    Raises:
        UserError: `p` is out of its bounds; the pattern matches no such layer (shows the names); a layer's
            weight is computed from others (`parametrize`).

    Source: Wan et al., "Regularization of Neural Networks using DropConnect", 2013.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    >>> drop_connect(network, 0.5, pattern="2")
    ['2']
    >>> remove_drop_connect(network)
    ['2']
    """
    if not 0 <= p < 1:
        raise UserError(f"`p` must lie in [0, 1), got {p}: it is the probability that a weight is dropped.")
    layers = matching_layers(module, pattern, _KINDS)
    uncalled = {id(part.out_proj) for part in module.modules() if isinstance(part, nn.MultiheadAttention)}
    chosen = {name: layer for name, layer in layers.items() if id(layer) not in uncalled}
    if not chosen:
        raise UserError(
            f"`pattern` {pattern!r} matches only inner projections of `nn.MultiheadAttention`, whose weights "
            "it multiplies itself. Choose other layers."
        )
    for name, layer in chosen.items():
        if not isinstance(layer._parameters.get("weight"), Tensor):
            raise UserError(
                f"DropConnect needs layers with a parameter `weight`; that of {name!r} is computed from "
                "others. Leave it out by `pattern`."
            )
    for layer in chosen.values():
        _remove(layer)
        setattr(layer, _ATTRIBUTE, DropConnect(layer, p))
    return list(chosen)


def remove_drop_connect(module: nn.Module) -> list[str]:
    """Have all layers use all of their weights again, and return the names of those that did not."""
    return [name for name, layer in module.named_modules() if _remove(layer)]


def _remove(layer: nn.Module) -> bool:
    found = vars(layer).pop(_ATTRIBUTE, None)
    if found is not None:
        found.remove()
    return found is not None
