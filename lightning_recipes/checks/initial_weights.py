"""The size of the weights before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt
from statistics import median

import torch
from torch import Tensor

from .finding import Finding

CHECK = "initial weights"
# Median over the layers, 59 architectures of timm 1.0.31 and 15 of torchvision 0.29.2, untrained: .112
# (mobilevit_xxs) to 2.12 (inception_v3), half of them .28 to 1.00. A single layer lies anywhere: 1e-5 to 5.1,
# or at zero. N(0, 1) has the square root of half the fan-in: 5.7 for 64 inputs, 17 for 3 x 3 x 64.
LARGE, SMALL = 4.0, 0.02
ALL_BUT = 0.5  # share of constant layers: heads and residual branches that begin at zero are fewer


def initial_weights(weights: Mapping[str, Tensor], *, pretrained: bool = False) -> Finding:
    r"""Judge the root mean square of each layer's weights over Kaiming's :math:`\sqrt{2/\text{fan-in}}`.

    Args:
        weights: Of linear layers and convolutions, (units, inputs, ...), before the first step.
        pretrained: Whether they have been trained already, and so are not judged.

    Source: He et al., "Delving Deep into Rectifiers", 2015.

    >>> initial_weights({"fc": torch.randn(8, 512)}).causes
    ('initialization-too-large',)
    """
    weights = {name: weight for name, weight in weights.items() if weight.ndim >= 2 and weight.numel() > 1}
    if pretrained:
        return Finding(CHECK, "SKIP", "The weights are pretrained.")
    if not weights:
        return Finding(CHECK, "SKIP", "There is no linear layer and no convolution.")
    ratios = {name: to_kaiming(weight) for name, weight in weights.items()}
    constant = [name for name, weight in weights.items() if bool((weight == weight.flatten()[0]).all())]
    zero = [name for name in constant if ratios[name] == 0]
    evidence = {"layers": len(weights), "to_kaiming": ratios}
    share = f"Of {len(constant)} of {len(weights)} layers all weights are equal"
    if len(constant) == len(weights) == 1:
        return Finding(CHECK, "PASS", "A single layer learns from equal weights too.", evidence)
    if len(constant) > ALL_BUT * len(weights):
        zeros = 2 * len(zero) > len(constant)
        return Finding(
            CHECK,
            "FAIL" if len(constant) == len(weights) else "WARN",
            f"{share}, {'zero' if zeros else 'not zero'}; expected random ones.",
            evidence,
            ("zero-initialization",) if zeros else ("constant-initialization",),
        )
    typical = median(ratio for name, ratio in ratios.items() if name not in zero)
    message = f"The median layer's weights are {typical:.3g} times as large as Kaiming's"
    if typical > LARGE:
        too = ("initialization-too-large",)
        return Finding(CHECK, "WARN", f"{message}; expected at most {LARGE:g}.", evidence, too)
    if typical < SMALL:
        too = ("initialization-too-small",)
        return Finding(CHECK, "WARN", f"{message}; expected at least {SMALL:g}.", evidence, too)
    return Finding(CHECK, "PASS", f"{message}.", evidence)


def to_kaiming(weight: Tensor) -> float:
    """Return the root mean square of a weight (units, inputs, ...) over the square root of 2 / fan-in.

    Source: He et al., "Delving Deep into Rectifiers", 2015.

    >>> to_kaiming(torch.full((3, 8), 0.5))
    1.0
    """
    size = weight.detach().to(torch.float32).square().mean().sqrt().item()
    return size / sqrt(2 / prod(weight.shape[1:]))
