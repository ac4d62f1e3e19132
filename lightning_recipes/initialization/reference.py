"""The handbook's table: what an initialization does to the activations of a deep network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Generator, Tensor

from ..utils.errors import UserError

WIDTH, BATCH = 4096, 64
TOLERANCE = 0.03


@dataclass(frozen=True)
class Reference:
    """A row of the table.

    Args:
        function: The activation.
        weight_std: Standard deviation of the weights, by the number of inputs.
        stds: The handbook's figures, standard deviations of the activations, layers 1 to 6.
    """

    function: Callable[[Tensor], Tensor]
    weight_std: Callable[[int], float]
    stds: tuple[float, ...]


REFERENCES: Mapping[str, Reference] = {
    "tanh, 0.01 N": Reference(torch.tanh, lambda _: 0.01, (0.49, 0.29, 0.18, 0.11, 0.07, 0.05)),
    "tanh, 0.05 N": Reference(torch.tanh, lambda _: 0.05, (0.87, 0.85, 0.85, 0.85, 0.85, 0.85)),
    "tanh, Xavier": Reference(torch.tanh, lambda n: 1 / sqrt(n), (0.63, 0.49, 0.41, 0.36, 0.32, 0.30)),
    "ReLU, Xavier": Reference(torch.relu, lambda n: 1 / sqrt(n), (0.58, 0.41, 0.30, 0.21, 0.15, 0.10)),
    "ReLU, Kaiming": Reference(torch.relu, lambda n: sqrt(2 / n), (0.83, 0.83, 0.83, 0.81, 0.81, 0.81)),
}
LAYERS = 6


@torch.no_grad()
def reference_table(*, width: int = WIDTH, seed: int = 0) -> dict[str, list[float]]:
    """Return the standard deviation of the activations of six layers, for each case of the handbook.

    Standard-normal inputs go through six fully connected layers of equal width. All cases have the same
    inputs and the same normal numbers, scaled as each wants them; so one row differs from another by its
    rule alone. Each of the 64 inputs meets weights of its own: the signs of the columns are drawn anew,
    which leaves normal numbers what they are. With shared weights the figures would be those of one draw,
    which scatter by some 0.03 at the sixth layer.

    Args:
        width: Units of each layer, and inputs of the first.
        seed: Of the random numbers.

    Raises:
        UserError: `width` below 1.

    Source: CS231n notes, "Training Neural Networks", weight initialization.

    >>> {name: len(stds) for name, stds in reference_table(width=8).items()}["ReLU, Kaiming"]
    6
    """
    if width < 1:
        raise UserError(f"`width` must be at least 1, got {width}. The handbook's is {WIDTH}.")
    generator = Generator().manual_seed(seed)
    inputs = torch.randn(BATCH, width, generator=generator)
    hidden = dict.fromkeys(REFERENCES, inputs)
    stds: dict[str, list[float]] = {name: [] for name in REFERENCES}
    for _ in range(LAYERS):
        normal = torch.randn(width, width, generator=generator)
        signs = torch.randint(2, (BATCH, width), generator=generator) * 2.0 - 1
        for name, case in REFERENCES.items():
            hidden[name] = case.function((hidden[name] * signs) @ normal * case.weight_std(width))
            stds[name].append(float(hidden[name].std(correction=0)))
    return stds


def largest_difference(measured: Mapping[str, Sequence[float]]) -> float:
    """Return how far the measured figures are from the handbook's at most.

    Args:
        measured: What `reference_table` returned.

    >>> largest_difference({name: case.stds for name, case in REFERENCES.items()})
    0.0
    """
    return max(
        abs(value - figure)
        for name, case in REFERENCES.items()
        for value, figure in zip(measured[name], case.stds, strict=True)
    )
