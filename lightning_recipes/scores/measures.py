"""Scores of probabilities against targets, each a function of means over samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..utils.errors import UserError

ECE_BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks", 2017
TINY = torch.finfo(torch.float32).tiny  # a zero costs 87.3, which is much, and finite


def accuracy(
    probabilities: Tensor,  # (N, K)
    targets: Tensor,  # (N,)
) -> float:
    """Return the share of samples whose likeliest class is the target.

    >>> accuracy(torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([0, 1]))
    0.5
    """
    return float(score_terms(probabilities, targets)[:, 0].mean())


def nll(
    probabilities: Tensor,  # (N, K)
    targets: Tensor,  # (N,)
) -> float:
    r"""Return the negative log-likelihood, :math:`-\frac1N \sum_n \ln p_{n, y_n}`, nats.

    A probability of zero counts as float32's smallest normal number.

    >>> round(nll(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([1, 0])), 4)
    0.3466
    """
    return float(score_terms(probabilities, targets)[:, 1].mean())


def brier(
    probabilities: Tensor,  # (N, K)
    targets: Tensor,  # (N,)
) -> float:
    r"""Return :math:`\frac1N \sum_n \sum_k (p_{nk} - [k = y_n])^2`, in [0, 2].

    Source: Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950.

    >>> brier(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([1, 0]))
    0.25
    """
    return float(score_terms(probabilities, targets)[:, 2].mean())


def ece(
    probabilities: Tensor,  # (N, K)
    targets: Tensor,  # (N,)
    *,
    bins: int = ECE_BINS,
) -> float:
    r"""Return the expected calibration error: :math:`\sum_b |\text{acc}_b - \text{conf}_b| \, n_b / N`.

    The confidence is the greatest probability. The same as torchmetrics' `MulticlassCalibrationError` (l1).

    Args:
        probabilities: Rows that sum to one.
        targets: Class indices.
        bins: Number of bins of equal width over [0, 1].

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.

    >>> ece(torch.tensor([[0.75, 0.25], [0.75, 0.25]]), torch.tensor([0, 1]))
    0.25
    """
    return float(ece_terms(probabilities, targets, bins=bins).mean(0).abs().sum())


def disagreement(probabilities: Tensor) -> float:
    """Return the share of samples on which two members predict different classes, averaged over the pairs.

    Args:
        probabilities: (M, N, K); of one member it is 0.

    Source: Fort, Hu and Lakshminarayanan, "Deep Ensembles: A Loss Landscape Perspective", 2019.

    >>> disagreement(torch.tensor([[[0.9, 0.1], [0.8, 0.2]], [[0.7, 0.3], [0.1, 0.9]]]))
    0.5
    """
    members, samples, classes = probabilities.shape
    if members < 2:
        return 0.0
    votes = F.one_hot(probabilities.argmax(-1), classes).sum(0)  # (N, K)
    agreeing = (votes * (votes - 1)).sum() / 2  # pairs of members, over all samples
    return 1 - float(agreeing) / (samples * members * (members - 1) / 2)


def score_terms(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return each sample's part in accuracy, NLL and Brier score: float64, (N, 3).

    Args:
        probabilities: (N, K).
        targets: int64, (N,).

    Raises:
        UserError: The shapes do not fit, there is no sample, or a number is not a probability or a class.
    """
    check_scored(probabilities, targets)
    exact = probabilities.double()
    correct = probabilities.argmax(1) == targets
    likelihood = exact.gather(1, targets[:, None])[:, 0].clamp_min(TINY)
    error = (exact - F.one_hot(targets, probabilities.shape[1])).square().sum(1)
    return torch.stack([correct.double(), -likelihood.log(), error], 1)


def ece_terms(
    probabilities: Tensor,  # (N, K)
    targets: Tensor,  # (N,)
    *,
    bins: int = ECE_BINS,
) -> Tensor:
    """Return correctness less confidence of each sample, in the column of its bin: float64, (N, bins + 1).

    The calibration error is the sum over columns of the absolute mean; of resampled samples, too.
    """
    check_scored(probabilities, targets)
    confidence, predicted = probabilities.max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
    index = torch.bucketize(confidence, edges, right=True) - 1  # exactly 1 has a column of its own
    gap = (predicted == targets).double() - confidence.double()
    return torch.zeros(len(gap), bins + 1, dtype=torch.float64, device=gap.device).scatter_(
        1, index[:, None], gap[:, None]
    )


def check_scored(probabilities: Tensor, targets: Tensor) -> None:
    """Refuse what cannot be scored.

    Raises:
        UserError: The shapes do not fit, there is no sample, or a number is not a probability or a class.
    """
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1] or not len(targets):
        raise UserError(
            f"Scores need probabilities (N, K) and targets (N,), got {tuple(probabilities.shape)} and "
            f"{tuple(targets.shape)}."
        )
    if not bool(((probabilities >= 0) & (probabilities <= 1 + 1e-4)).all()):  # NaN is neither
        raise UserError(
            "The probabilities hold numbers outside [0, 1], or NaN. Give probabilities, not logits; "
            "where they are, look for a member whose training diverged."
        )
    least, most = int(targets.min()), int(targets.max())
    if least < 0 or most >= probabilities.shape[1]:
        raise UserError(
            f"The targets must lie in 0..{probabilities.shape[1] - 1}, one class a column of the "
            f"probabilities, got {least}..{most}."
        )
