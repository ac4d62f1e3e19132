"""Freezing: parameters that do not learn, in layers that evaluate."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class Freezer:
    """Freezes parts of a module, again and again other ones, and leaves it as it was found.

    Frozen parameters ask for no gradient and keep none. Layers all of whose parameters are frozen evaluate:
    running statistics of a BatchNorm stay as they are, to the bit, and dropout is off.

    Args:
        module: Of which parts are frozen.

    >>> import torch
    >>> net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    >>> with Freezer(net) as freezer:
    ...     changed = freezer.freeze(set(net[0].parameters()))
    ...     [(part.training, part.weight.requires_grad) for part in net]
    [(False, False), (True, True)]
    >>> [(part.training, part.weight.requires_grad) for part in net]
    [(True, True), (True, True)]
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._asked = {parameter: parameter.requires_grad for parameter in module.parameters()}
        self._modes = {part: part.training for part in module.modules()}
        self.frozen: frozenset[Tensor] = frozenset()
        self._still: list[nn.Module] = []

    def __enter__(self) -> Freezer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def freeze(self, parameters: Collection[Tensor]) -> bool:
        """Freeze these parameters of the module and no others; what was frozen before it stays so.

        Args:
            parameters: Of the module.

        Returns:
            Whether other parameters learn now than before.
        """
        chosen = frozenset(parameters)
        changed = chosen != self.frozen
        for parameter, asked in self._asked.items():
            parameter.requires_grad_(asked and parameter not in chosen)
            if parameter in chosen:
                parameter.grad = None  # an old one would go on being applied
        self.frozen = chosen
        for part, training in self._modes.items():
            part.training = training
        self._still = _still_parts(self.module, chosen)
        self.keep_still()
        return changed

    def keep_still(self) -> None:
        """Have the frozen layers evaluate, whoever has told the module to train since."""
        for part in self._still:
            part.training = False

    def restore(self, *, training: bool = True) -> None:
        """Give parameters and layers back what they had.

        Args:
            training: Whether the others train at the moment; if not, the frozen layers go on evaluating too.
        """
        for parameter, asked in self._asked.items():
            parameter.requires_grad_(asked)
        for part in self._still:
            part.training = training and self._modes[part]


def norm_parameters(module: nn.Module) -> set[Tensor]:
    """Return the parameters of layers that keep running statistics.

    >>> len(norm_parameters(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.LayerNorm(1))))
    2
    """
    return {p for part in module.modules() if isinstance(part, _NormBase) for p in part.parameters()}


def _still_parts(module: nn.Module, frozen: Collection[Tensor]) -> list[nn.Module]:
    """Return all layers within the largest parts that have parameters, of which every one is frozen."""
    parameters = list(module.parameters())
    if parameters and all(parameter in frozen for parameter in parameters):
        return list(module.modules())
    return [part for child in module.children() for part in _still_parts(child, frozen)]
