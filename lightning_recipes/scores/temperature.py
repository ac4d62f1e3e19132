"""One number that makes probabilities sharper or flatter, and leaves their order alone."""

from __future__ import annotations

from torch import Tensor

from ..utils.errors import UserError
from .measures import TINY, check_scored

BOUNDS = (0.01, 100.0)  # far outside what any trained network needs


def temper(
    probabilities: Tensor,  # (..., K)
    temperature: float,
) -> Tensor:
    r"""Return :math:`\text{softmax}(\ln p / T)`: sharper for T below 1, flatter above it, itself at 1.

    Args:
        probabilities: Rows that sum to one; a zero counts as float32's smallest normal number.
        temperature: T, above 0.

    Raises:
        UserError: T is not above 0.

    >>> import torch
    >>> temper(torch.tensor([0.8, 0.2]), 0.5)
    tensor([0.9412, 0.0588])
    """
    if not temperature > 0:
        raise UserError(f"`temperature` must be above 0, got {temperature}. 1 changes nothing.")
    if temperature == 1:
        return probabilities
    return (probabilities.clamp_min(TINY).log() / temperature).softmax(-1)


def fit_temperature(probabilities: Tensor, targets: Tensor) -> float:
    r"""Return the T that minimises the NLL of :math:`\text{softmax}(\ln p / T)`, within [0.01, 100].

    The NLL is convex in :math:`\beta = 1/T`; its slope is what the tempered model expects of :math:`\ln p`,
    less what it is at the target, and its root is found by Newton's steps inside a bracket, in float64.

    Where every sample is predicted right, sharper is always likelier and the samples say nothing of T:
    it is then 1.

    Args:
        probabilities: (N, K), pooled already when they are an ensemble's.
        targets: int64, (N,).

    Raises:
        UserError: The shapes do not fit, or a number is not a probability or a class.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017; fitted after pooling: Rahaman and
    Thiery, "Uncertainty Quantification and Deep Ensembles", 2021.

    >>> import torch
    >>> round(fit_temperature(torch.tensor([[0.9, 0.1]] * 4), torch.tensor([0, 0, 0, 1])), 4)  # ln 9 / ln 3
    2.0
    """
    check_scored(probabilities, targets)
    logits = probabilities.double().clamp_min(TINY).log()  # (N, K)
    chosen = logits.gather(1, targets[:, None])  # (N, 1)
    if bool((chosen == logits.amax(1, keepdim=True)).all()):
        return 1.0
    excess = logits - chosen  # (N, K), zero at the target

    def slope(beta: float) -> tuple[float, float]:
        weights = (beta * logits).softmax(1)
        mean = (weights * excess).sum(1)
        variance = (weights * excess.square()).sum(1) - mean.square()
        return float(mean.mean()), float(variance.mean())

    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    if slope(low)[0] >= 0:
        return BOUNDS[1]
    if slope(high)[0] <= 0:
        return BOUNDS[0]
    beta = 1.0
    for _ in range(200):  # a dozen are usual
        first, second = slope(beta)
        low, high = (low, beta) if first > 0 else (beta, high)
        newton = beta - first / second if second > 0 else low
        step = newton if low < newton < high else (low * high) ** 0.5
        if abs(step - beta) <= 1e-12 * beta:
            break
        beta = step
    return 1 / beta
