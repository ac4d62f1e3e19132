"""The first steps of a run, watched from outside: optimizers, gradients, losses."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer


class FirstSteps:
    """Watches some parameters of each optimizer: are gradients cleared between its steps?

    A gradient is stale when, between two steps, it was never zero or absent while another was being added
    to it. One large parameter of each group is watched; nothing is fetched from the device until it is read.

    Args:
        optimizers: Of the run.
        most: Steps of each optimizer to watch.
    """

    def __init__(self, optimizers: list[Optimizer], *, most: int = 12) -> None:
        self.most = most
        self.steps: dict[int, int] = dict.fromkeys(range(len(optimizers)), 0)
        self._stale: list[Tensor] = []
        self._since: dict[int, list[Tensor | None]] = {}  # what was in each gradient when more was added
        self._handles: list[Any] = []
        for number, optimizer in enumerate(optimizers):
            watched = [
                max(trainable, key=Tensor.numel)
                for group in optimizer.param_groups
                if (trainable := [p for p in group["params"] if p.requires_grad])
            ]
            for parameter in watched:
                self._handles.append(parameter.register_hook(self._adding(parameter)))
            self._handles.append(optimizer.register_step_post_hook(self._stepped(number, watched)))

    def _adding(self, parameter: Tensor) -> Any:  # noqa: ANN401 - a hook
        def hook(_: Tensor) -> None:
            if id(parameter) in self._since:
                held = parameter.grad
                self._since[id(parameter)].append(None if held is None else held.detach().any())

        return hook

    def _stepped(self, number: int, watched: list[Tensor]) -> Any:  # noqa: ANN401 - a hook
        def hook(*_: Any) -> None:  # noqa: ANN401 - what torch hands a hook
            self.steps[number] += 1
            for parameter in watched:
                found = self._since.pop(id(parameter), [])
                if found:
                    kept = [flag for flag in found if flag is not None]
                    cleared = len(kept) < len(found)
                    self._stale.append(torch.zeros(()) if cleared else torch.stack(kept).all())
                if self.steps[number] <= self.most:
                    self._since[id(parameter)] = []

        return hook

    def stale(self) -> tuple[int, int]:
        """Return how many of the watched gradients were stale, and how many were watched."""
        return sum(int(bool(flag)) for flag in self._stale), len(self._stale)

    def close(self) -> None:
        """Take the hooks back."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def not_finite(module: LightningModule) -> list[str]:
    """Return the names of parameters and buffers that hold NaN or infinity.

    Args:
        module: Whose state is looked at, with one transfer from its device.

    >>> layer = torch.nn.Linear(1, 1)
    >>> layer.bias.data.fill_(float("nan"))
    tensor([nan])
    >>> not_finite(layer)
    ['bias']
    """
    named = [*module.named_parameters(), *module.named_buffers()]
    floats = [(name, t) for name, t in named if t.is_floating_point()]
    if not floats:
        return []
    flags = torch.stack([t.detach().isfinite().all() for _, t in floats]).tolist()
    return [name for (name, _), flag in zip(floats, flags, strict=True) if not flag]
