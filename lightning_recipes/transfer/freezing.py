"""Freezing: parameters that do not learn, in layers that evaluate."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle


class Freezer:
    """Freezes parts of a module, again and again other ones, and leaves it as it was found.

    Frozen parameters ask for no gradient and keep none. Layers all of whose parameters are frozen evaluate,
    whoever tells the module to train: running statistics of a BatchNorm stay as they are, to the bit, and
    dropout is off.

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
        self.frozen: frozenset[Tensor] = frozenset()
        self._asked: dict[Tensor, bool] = {}  # for a gradient, before they were frozen
        self._still: dict[nn.Module, tuple[bool, RemovableHandle]] = {}  # the mode before, and the hook

    def __enter__(self) -> Freezer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def freeze(self, parameters: Collection[Tensor], *, layers: Collection[nn.Module] = ()) -> bool:
        """Freeze these parameters of the module and no others; what others have frozen stays so.

        Args:
            parameters: Of the module.
            layers: Have these evaluate too, whether they have parameters or not.

        Returns:
            Whether other parameters learn now than before.
        """
        chosen = frozenset(parameters)
        changed = chosen != self.frozen
        for parameter in self.frozen - chosen:
            parameter.requires_grad_(self._asked.pop(parameter))
        for parameter in chosen - self.frozen:
            self._asked[parameter] = parameter.requires_grad
            parameter.requires_grad_(False)
            parameter.grad = None  # an old one would go on being applied
        self.frozen = chosen
        still = _still_parts(self.module, chosen) | set(layers)
        for part in self._still.keys() - still:
            part.training = self._let_go(part)
        for part in still - self._still.keys():
            self._still[part] = part.training, part.register_forward_pre_hook(_evaluate)
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
        for part in list(self._still):
            part.training = self._let_go(part) and training
        self._asked, self.frozen = {}, frozenset()

    def _let_go(self, part: nn.Module) -> bool:
        training, hook = self._still.pop(part)
        hook.remove()
        return training


def _evaluate(layer: nn.Module, args: object) -> None:
    """Keep a layer still that was told to train since the batch began; a hook before its forward pass."""
    if layer.training:
        layer.training = False


def norm_layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers that keep running statistics.

    >>> len(norm_layers(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.LayerNorm(1))))
    1
    """
    return [part for part in module.modules() if isinstance(part, _NormBase)]


def _still_parts(module: nn.Module, frozen: Collection[Tensor]) -> set[nn.Module]:
    """Return all layers of which every parameter is frozen.

    With them those without parameters (dropout, norms without weights) that lie, in the order of
    registration, behind a frozen one and before any that learns.
    """
    still: set[nn.Module] = set()
    begun = learning = False
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and all(parameter in frozen for parameter in parameters):
            still.update(part.modules())
        elif not parameters and begun and not learning:
            still.add(part)
        own = [parameter in frozen for parameter in part.parameters(recurse=False)]
        begun, learning = begun or any(own), learning or not all(own)
    return still
