"""Losses that torch has only in part."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiLabelLoss(nn.Module):
    """Binary cross-entropy of each label, averaged, with class weights and label smoothing.

    Smoothing by ε moves targets from {0, 1} to {ε/2, 1 - ε/2}.

    Args:
        weight: Weight of the positive targets of each class, (K,).
        label_smoothing: ε, in [0, 1).

    >>> loss = MultiLabelLoss(label_smoothing=0.5)
    >>> loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
    tensor(0.6931)
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over samples and labels.

        Args:
            logits: (B, K).
            targets: In [0, 1], (B, K).
        """
        targets = torch.lerp(targets.to(logits.dtype), torch.full_like(logits, 0.5), self.label_smoothing)
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weight)
