"""Mean and covariance of vectors of which only a few are there at a time."""

from __future__ import annotations

import torch
from torch import Tensor

_NUMBERS = 2**22  # float64 at a time, 32 MiB: a batch of large images is worked through in pieces


class Moments:
    r"""Mean and variance, or covariance, in one pass over batches of vectors, in float64.

    Of :math:`n` vectors so far and a batch of :math:`m`, with :math:`\delta` the difference of their means,

    .. math:: \mu \leftarrow \mu + \tfrac{m}{n+m}\,\delta, \qquad
        Q \leftarrow Q + Q_\text{batch} + \tfrac{nm}{n+m}\,\delta\delta^\top,

    where :math:`Q` are the summed squares around the mean. Squares around 0, less the square of the mean,
    would lose all digits where the mean is large.

    Args:
        covariance: Keep the covariance (D, D) and not only its diagonal.

    Source: Welford, "Note on a Method for Calculating Corrected Sums of Squares and Products", 1962; Chan,
    Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.

    >>> moments = Moments()
    >>> for batch in torch.tensor([[1.0], [2.0], [6.0]]).split(2):
    ...     moments.update(batch)
    >>> moments.count, moments.mean.item(), round(moments.variance.item(), 3)
    (3, 3.0, 4.667)
    """

    def __init__(self, *, covariance: bool = False) -> None:
        self.count = 0
        self._keeps_covariance = covariance
        self._mean = torch.empty(0, dtype=torch.float64)  # (D,)
        self._squares = torch.empty(0, dtype=torch.float64)  # (D,) or (D, D)

    def update(self, vectors: Tensor) -> None:
        """Take in a batch.

        Args:
            vectors: (n, D), of any dtype and of any n.
        """
        for piece in torch.split(vectors, max(_NUMBERS // vectors.shape[1], 1)):
            if len(piece):
                self._merge(piece.double())

    def _merge(self, vectors: Tensor) -> None:
        added, size = vectors.shape
        if self.count == 0:
            self._mean = vectors.new_zeros(size)
            self._squares = vectors.new_zeros((size, size) if self._keeps_covariance else size)
        mean = vectors.mean(0)
        centred, delta = vectors - mean, mean - self._mean
        total = self.count + added
        weight = self.count * added / total
        if self._keeps_covariance:
            self._squares.addmm_(centred.T, centred).addr_(delta, delta, alpha=weight)
        else:
            self._squares.add_(centred.square_().sum(0)).addcmul_(delta, delta, value=weight)
        self._mean.add_(delta, alpha=added / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        """float64 (D,)."""
        return self._mean.clone()

    @property
    def variance(self) -> Tensor:
        """Mean square around the mean (divided by n), float64 (D,)."""
        return (self._squares.diagonal() if self._keeps_covariance else self._squares) / self.count

    @property
    def covariance(self) -> Tensor:
        """Mean product around the means (divided by n), float64 (D, D); needs `covariance=True`."""
        assert self._keeps_covariance
        return self._squares / self.count
