"""Units that are twins, and stay so."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .finding import Finding

CHECK = "symmetry"
FAIL_FROM = 0.9  # of a layer's units
ALIKE = 1e-5  # of the root mean square of a row; sums in another order differ by some 1e-7


def symmetry(layers: Mapping[str, tuple[Tensor, Tensor | None]]) -> Finding:
    """Judge whether the units of a layer have the weights and the gradients of another.

    Such units compute the same for ever. A layer that begins at zero by design (a head, the last layer of a
    residual branch) is none after two steps, for its gradients differ.

    Args:
        layers: Name to the weight, units in the first dimension, and its gradient, after two steps. Those
            with fewer than two dimensions (biases, scales of norms and layers) and single units are left out.

    Source: CS231n notes, "Neural Networks Part 2", section "Pitfall: all zero initialization".

    >>> symmetry({"fc": (torch.full((4, 3), 0.5), torch.ones(4, 3))}).causes
    ('constant-initialization',)
    """
    layers = {
        name: (weight, gradient)
        for name, (weight, gradient) in layers.items()
        if weight.ndim >= 2 and len(weight) > 1
    }
    if not layers:
        return Finding(CHECK, "SKIP", "There is no layer with several units.")
    shares = {name: twins(*tensors) for name, tensors in layers.items()}
    symmetric = [name for name, share in shares.items() if share >= FAIL_FROM]
    evidence = {"layers": len(layers), "twins": shares}
    if not symmetric:
        worst = max(shares, key=lambda name: shares[name])
        said = f"At most {shares[worst]:.0%} of a layer's units have a twin."
        return Finding(CHECK, "PASS", said, evidence)
    zeros = sum(not layers[name][0].any() for name in symmetric)
    return Finding(
        CHECK,
        "FAIL",
        f"{shares[symmetric[0]]:.0%} of the {len(layers[symmetric[0]][0])} units of `{symmetric[0]}` have a "
        f"twin with equal weights and gradients, as in {len(symmetric)} of {len(layers)} layers; expected "
        f"below {FAIL_FROM:.0%}.",
        evidence,
        ("zero-initialization",) if 2 * zeros > len(symmetric) else ("constant-initialization",),
    )


@torch.no_grad()
def twins(
    weight: Tensor,  # (units, ...)
    gradient: Tensor | None = None,  # as the weight
) -> float:
    """Return the fraction of units that have another with the same weights and the same gradient.

    Units are sorted by their projection on a fixed random direction, where equals are neighbours; only
    neighbours are compared.

    >>> twins(torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [0.0, 1.0]]))
    0.5
    """
    parts = [weight, *([] if gradient is None else [gradient])]
    rows = torch.cat([_scaled(part.detach().reshape(len(part), -1).cpu()) for part in parts], 1)  # (n, d)
    draws = torch.Generator().manual_seed(0)
    direction = torch.randn(rows.shape[1], generator=draws, dtype=rows.dtype)
    ordered = rows[(rows @ direction).argsort()]
    alike = (ordered[1:] - ordered[:-1]).abs().amax(1) <= ALIKE
    either = torch.zeros(len(rows), dtype=torch.bool)
    either[1:] |= alike
    either[:-1] |= alike
    return either.double().mean().item()


def _scaled(rows: Tensor) -> Tensor:
    rows = rows.double()
    scale = rows.square().mean().sqrt()
    return rows / scale if scale > 0 else rows
