"""Max pooling over regions of random position, with an evaluation that is not random."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..utils.errors import UserError

Evaluation: TypeAlias = Literal["fixed", "average"]
GOLDEN = (5**0.5 - 1) / 2


class FractionalPool(nn.Module):
    r"""Shrinks by a factor between 1 and 2, by the maxima of overlapping regions whose position is random.

    The i-th of n regions along an axis of length s begins at
    :math:`\lfloor (i + u) \alpha \rfloor - \lfloor u \alpha \rfloor` with
    :math:`\alpha = (s - k) / (n - 1)`, the last one at s − k. While training each image and channel draws its
    own u for each axis, from torch's generator. In evaluation the same input gives the same output:

    - `average`: the mean over `passes` points u, spread evenly over the unit square, which tends to the mean
      over the training's regions as `passes` grows, and costs `passes` times as much;
    - `fixed`: u = 1/2 for all.

    `nn.FractionalMaxPool2d` stays random in evaluation. Where α is whole, u has no effect: a window of 2 that
    halves an even side is not random at all.

    Args:
        kernel_size: Side of the regions, k; of one axis each, or of both.
        ratio: Output over input side, in (0, 1); the output has ⌊ratio · s⌋ pixels. None: as many as the
            pool in `replaced` gives.
        evaluate: `average` or `fixed`.
        passes: Points of `average`.
        replaced: The pool whose place this takes.

    Raises:
        UserError: An argument out of its bounds, or neither `ratio` nor `replaced`.

    Source: Graham, "Fractional Max-Pooling", 2014.

    >>> pool = FractionalPool(2).eval()
    >>> pool(torch.arange(64.0).view(1, 1, 8, 8)).shape
    torch.Size([1, 1, 5, 5])
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int] = 2,
        *,
        ratio: float | None = 2**-0.5,
        evaluate: Evaluation = "average",
        passes: int = 16,
        replaced: nn.MaxPool2d | None = None,
    ) -> None:
        super().__init__()
        if ratio is not None and not 0 < ratio < 1:
            raise UserError(f"`ratio` must lie in (0, 1), got {ratio}. To keep the sizes, set it to null.")
        if ratio is None and replaced is None:
            raise UserError(
                "`ratio` is None, and there is no pool in `replaced` whose size to take. Give one."
            )
        if evaluate not in get_args(Evaluation):
            raise UserError(f"`evaluate` must be fixed or average, got {evaluate!r}.")
        if passes < 1:
            raise UserError(f"`passes` must be at least 1, got {passes}.")
        self.kernel_size, self.ratio, self.evaluate, self.passes = kernel_size, ratio, evaluate, passes
        self.replaced = replaced

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C, n_h, n_w) of (B, C, H, W)."""
        size = self.output_size(images.shape[-2], images.shape[-1])
        wide = images.float() if images.element_size() < 4 else images  # 16 bits place regions badly
        draws = (*wide.shape[:2], 2)
        if self.training:
            pooled = self._pool(wide, size, torch.rand(draws, dtype=wide.dtype, device=wide.device))
        elif self.evaluate == "fixed":
            pooled = self._pool(wide, size, wide.new_full(draws, 0.5))
        else:
            points = even_points(self.passes).to(wide)  # (passes, 2)
            pooled = torch.zeros((), dtype=wide.dtype, device=wide.device)
            for point in points:
                pooled = pooled + self._pool(wide, size, point.expand(draws)) / self.passes
        return pooled.to(images.dtype)

    def _pool(self, images: Tensor, size: tuple[int, int], draws: Tensor) -> Tensor:
        pooled: Tensor = F.fractional_max_pool2d(images, self.kernel_size, size, _random_samples=draws)
        return pooled

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the sides of the output for sides of the input, pixels."""
        if self.ratio is not None:
            return int(height * self.ratio), int(width * self.ratio)
        assert self.replaced is not None
        shape = self.replaced(torch.empty(1, 1, height, width, device="meta")).shape
        return int(shape[-2]), int(shape[-1])

    def extra_repr(self) -> str:
        """Return the settings."""
        settings = ("kernel_size", "ratio", "evaluate", "passes")
        return ", ".join(f"{name}={getattr(self, name)}" for name in settings)


def even_points(count: int) -> Tensor:
    r"""Return points spread evenly over the unit square, (count, 2): :math:`((i + 1/2)/n, \{(i + 1/2) φ\})`.

    Source: the lattice of the golden ratio φ; Niederreiter, "Random Number Generation and Quasi-Monte Carlo
    Methods", 1992.

    >>> even_points(2)
    tensor([[0.2500, 0.3090],
            [0.7500, 0.9271]], dtype=torch.float64)
    """
    middle = torch.arange(count, dtype=torch.float64) + 0.5
    return torch.stack([middle / count, (middle * GOLDEN) % 1], 1)


def swap_max_pools(
    module: nn.Module,
    *,
    ratio: float | None = 2**-0.5,
    evaluate: Evaluation = "average",
    passes: int = 16,
) -> list[str]:
    """Put a `FractionalPool` in the place of every max pool that shrinks; its regions keep the pool's size.

    A pool of stride 1 stays. With a `ratio` that is not the pool's own the layers behind it see larger
    images and take longer; where something runs beside the pool and must keep its size (Inception), take
    `ratio=None`.

    Args:
        module: Is changed.
        ratio: Output over input side, in (0, 1): 1/√2 is the paper's. None keeps the sizes, with regions of
            less freedom, and of none where a window of 2 halves an even side.
        evaluate: Regions in evaluation: the `average` of several, or `fixed`.
        passes: How many `average` takes.

    Returns:
        The names of the pools.

    Raises:
        UserError: An argument out of its bounds, or no such pool (shows what pooling there is).

    Source: Graham, "Fractional Max-Pooling", 2014.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    >>> swap_max_pools(network)
    ['2']
    """
    found = [
        (parent, name, f"{prefix}.{name}".lstrip("."), child)
        for prefix, parent in module.named_modules()
        for name, child in parent._modules.items()
        if isinstance(child, nn.MaxPool2d) and not isinstance(parent, FractionalPool) and _shrinks(child)
    ]
    if not found:
        others = [
            f"{n} ({type(m).__name__})" for n, m in module.named_modules() if "Pool" in type(m).__name__
        ]
        there = f"; its pooling is {', '.join(others)}" if others else ""
        raise UserError(
            f"{type(module).__name__} has no `nn.MaxPool2d` that shrinks{there}. Take a backbone that has, "
            "such as resnet10t or vgg11, or leave fractional pooling out."
        )
    for parent, name, _, pool in found:
        kernel = pool.kernel_size
        swapped = FractionalPool(
            kernel if isinstance(kernel, int) else (kernel[0], kernel[1]),
            ratio=ratio,
            evaluate=evaluate,
            passes=passes,
            replaced=pool,
        )
        setattr(parent, name, swapped.train(pool.training))
    return [full for _, _, full, _ in found]


def _shrinks(pool: nn.MaxPool2d) -> bool:
    stride = pool.stride
    return max(stride if isinstance(stride, tuple) else (stride,)) > 1
