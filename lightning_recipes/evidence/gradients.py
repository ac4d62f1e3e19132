"""What gradients say: their size along the depth, and where they ceased to be finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import nan
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def depth_ratio(values: Sequence[float]) -> float:
    """Return the median of the first third of the values over that of the last; NaN for fewer than three.

    Args:
        values: One number a layer, the first layer first; NaN where there is none. (L,)

    >>> depth_ratio([1.0, 2.0, 3.0, 4.0, 10.0, 10.0])
    0.15
    """
    known = [value for value in values if value == value]
    third = len(known) // 3
    if not third or median(known[-third:]) == 0:
        return nan
    return median(known[:third]) / median(known[-third:])


class BackwardOrder:
    """The order in which the gradients of a module's parameters arrive in its first backward pass.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> order = BackwardOrder(net)
    >>> net(torch.ones(1, 1)).sum().backward()
    >>> order.close()
    >>> order.sort(["0.weight", "1.weight"])
    ['1.weight', '0.weight']
    """

    def __init__(self, module: nn.Module) -> None:
        self._registered = [name for name, _ in module.named_parameters()]
        self.arrived: dict[str, None] = {}  # in this order
        self._handles: list[RemovableHandle] = []
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                hook: Callable[[Tensor], None] = partial(self._note, name)
                handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
                self._handles.append(handle)

    def _note(self, name: str, _: Tensor) -> None:
        self.arrived.setdefault(name)

    def close(self) -> None:
        """Remove the hooks."""
        while self._handles:
            self._handles.pop().remove()

    def sort(self, names: Sequence[str]) -> list[str]:
        """Return the names in the order of arrival; behind them those that did not, last registered first."""
        places = {name: number for number, name in enumerate(self.arrived)}
        for name in reversed(self._registered):
            places.setdefault(name, len(places))
        return sorted(names, key=lambda name: places.get(name, len(places)))


class NonFiniteGradients:
    """Keeps, where the gradients lie and without a transfer, the first step with one that is not finite.

    Args:
        size: How many parameters there are.

    >>> kept = NonFiniteGradients(2)
    >>> kept.update({0: torch.tensor(1.0), 1: torch.tensor(2.0)}, step=1)
    >>> kept.update({0: torch.tensor(float("nan")), 1: torch.tensor(2.0)}, step=2)
    >>> kept.read()
    (1, 2, [0])
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._state: Tensor | None = None  # count, first step, and whether each was not finite then
        self._zero: Tensor | None = None

    def update(self, norms: dict[int, Tensor], step: int, *, unless: Tensor | None = None) -> None:
        """Look at a step.

        Args:
            norms: Norms of gradients, scalars, by the number of their parameter.
            step: Its number.
            unless: Above zero where the optimizer left the step out, which then does not count.
        """
        if not norms:
            return
        device = next(iter(norms.values())).device
        if self._state is None or self._zero is None:
            self._state = torch.zeros(self.size + 2, device=device)
            self._zero = torch.zeros((), device=device)
        device, zero = self._state.device, self._zero
        line = [norms[i].to(device, torch.float32) if i in norms else zero for i in range(self.size)]
        now = ~torch.isfinite(torch.stack(line))
        broken = now.any()
        if unless is not None:
            broken = broken & (unless.to(device) <= 0).reshape(())
        first = broken & (self._state[0] == 0)
        self._state[0] += broken
        self._state[1:].copy_(
            torch.where(first, torch.cat([zero.new_full((1,), step), now.float()]), self._state[1:])
        )

    def read(self) -> tuple[int, int, list[int]]:
        """Return how many steps, the first of them, and the parameters that were not finite then."""
        if self._state is None:
            return 0, 0, []
        count, first, *flags = self._state.tolist()
        return int(count), int(first), [number for number, flag in enumerate(flags) if flag]

    @property
    def count(self) -> Tensor | None:
        """The number of steps, on the device."""
        return None if self._state is None else self._state[0]
