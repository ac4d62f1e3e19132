"""The weights that a network computes sums of products with."""

from __future__ import annotations

from torch import Tensor, nn

from ..utils.tensors import local_part


def layer_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of all linear layers and convolutions by name, units in the first dimension.

    >>> {name: tuple(weight.shape) for name, weight in layer_weights(nn.ConvTranspose1d(2, 3, 5)).items()}
    {'weight': (3, 2, 5)}
    """
    weights = {}
    for path, part in module.named_modules():
        if not isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
            continue
        if isinstance(part.weight, nn.parameter.UninitializedParameter):
            continue  # of a lazy layer that has seen no batch
        weight = local_part(part.weight.detach())
        turned = isinstance(part, nn.modules.conv._ConvTransposeNd)
        weights[f"{path}.weight" if path else "weight"] = weight.transpose(0, 1) if turned else weight
    return weights
