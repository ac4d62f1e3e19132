"""What keeps weights small beside an optimizer's decay: L1, the elastic net, and a bound on their norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


@torch.no_grad()
def elastic_net(weights: Sequence[Tensor], *, l1: float, l2: float) -> Tensor:
    r"""Return :math:`\lambda_1 \sum |w| + \lambda_2 \sum w^2` over all weights, without a gradient.

    Args:
        weights: Any shapes; one at least.
        l1: λ₁, at least 0.
        l2: λ₂, at least 0; an optimizer's `weight_decay` of λ is an `l2` of λ/2.

    Returns:
        A scalar where the first weight lies, float32 at least.

    Source: Zou and Hastie, "Regularization and Variable Selection via the Elastic Net", 2005.

    >>> elastic_net([torch.tensor([3.0, -4.0])], l1=1.0, l2=0.1)
    tensor(9.5000)
    """
    total = torch.zeros((), device=weights[0].device)
    for weight in weights:
        wide = weight.float() if weight.element_size() < 4 else weight
        term = l1 * wide.abs().sum() + l2 * wide.square().sum()
        term = term.full_tensor() if isinstance(term, DTensor) else term
        total = total + term.to(total.device)
    return total


@torch.no_grad()
def add_elastic_net_gradient(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    l1: float,
    l2: float,
    scale: Tensor | None = None,
) -> None:
    r"""Add :math:`\lambda_1 \operatorname{sign}(w) + 2 \lambda_2 w` to each gradient: that of `elastic_net`.

    At w = 0 the subgradient of :math:`|w|` is taken as 0.

    Args:
        weights: Any shapes.
        gradients: Of the same shapes; changed in place.
        l1: λ₁, at least 0.
        l2: λ₂, at least 0.
        scale: What the gradients have been multiplied by, a scalar.

    >>> gradient = torch.zeros(3)
    >>> add_elastic_net_gradient([torch.tensor([2.0, 0.0, -2.0])], [gradient], l1=1.0, l2=0.25)
    >>> gradient
    tensor([ 2.,  0., -2.])
    """
    for weight, gradient in zip(weights, gradients, strict=True):
        if scale is None:
            if l1:
                gradient.add_(weight.sign(), alpha=l1)
            if l2:
                gradient.add_(weight, alpha=2 * l2)
        else:
            gradient.add_((l1 * weight.sign() + 2 * l2 * weight) * scale.to(gradient.device))


@torch.no_grad()
def limit_norms(weight: Tensor, limit: float, *, transposed: bool = False, groups: int = 1) -> None:
    r"""Scale the incoming weights of each unit back to :math:`\|w\|_2 \le c`, in place.

    Units within the bound stay as they are, to the bit.

    Args:
        weight: (units, …), or (inputs, units / groups, …) where transposed.
        limit: c, above 0.
        transposed: The weight is that of a transposed convolution.
        groups: Of the transposed convolution; its inputs and units are cut into so many parts.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014,
    section 5.1.

    >>> weight = torch.tensor([[3.0, 4.0], [0.6, 0.8]])
    >>> limit_norms(weight, 2.5)
    >>> weight
    tensor([[1.5000, 2.0000],
            [0.6000, 0.8000]])
    """
    shape = (groups, weight.shape[0] // groups, *weight.shape[1:]) if transposed else weight.shape
    units = weight.view(shape)  # (units, …) or (groups, inputs / groups, units / groups, …)
    summed = [d for d in range(len(shape)) if d not in ((0, 2) if transposed else (0,))]
    dtype = torch.float32 if weight.element_size() < 4 else weight.dtype
    norms = torch.linalg.vector_norm(units, 2, summed, keepdim=True, dtype=dtype)
    units.mul_((limit / norms).clamp(max=1.0).to(weight.dtype))  # a norm of 0: infinity, and so 1
