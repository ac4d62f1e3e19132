"""Which members an ensemble is better without."""

from __future__ import annotations

import torch
from torch import Tensor

from .measures import TINY, check_scored


def select_members(
    probabilities: Tensor,  # (M, N, K)
    targets: Tensor,  # (N,)
) -> list[int]:
    """Return the members to keep, in order: backward elimination by the NLL of the mean probabilities.

    From all members on, the one whose absence gives the lowest NLL is left out, as long as that is strictly
    below the NLL with it; of equals the first. At least one stays. Choose on validation samples.

    Raises:
        UserError: The shapes do not fit, or a number is not a probability or a class.

    >>> good, bad = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.1, 0.9]])
    >>> select_members(torch.stack([good, bad, good]), torch.tensor([0]))
    [0, 2]
    """
    for member in probabilities:
        check_scored(member, targets)
    index = targets.view(1, -1, 1).expand(len(probabilities), -1, 1)
    likelihood = probabilities.double().gather(2, index)[..., 0]  # (M, N)

    def pooled(members: list[int]) -> float:
        return float(-likelihood[members].mean(0).clamp_min(TINY).log().mean())

    kept = list(range(len(probabilities)))
    best = pooled(kept)
    while len(kept) > 1:
        absent = [pooled([other for other in kept if other != member]) for member in kept]
        least = int(torch.tensor(absent, dtype=torch.float64).argmin())
        if absent[least] >= best:
            break
        best = absent[least]
        del kept[least]
    return kept
