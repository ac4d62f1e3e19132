"""Averages of weights: what can be asked of one, and how several share a Trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..averaging import WeightAverage
from ..utils.errors import UserError
from ..utils.resuming import key_in
from ..utils.tensors import carrying, tensors_of

_METHOD = "lightning_module_state_dict"  # the strategy's, from which every checkpoint takes its weights


class KeptAverage(Callback):
    """A callback that keeps an average of the weights, before and after it has begun."""

    def __init__(self, device: str | None) -> None:
        self.device = device
        self.n_averaged = 0
        self.steps = 0
        self._average: WeightAverage | None = None
        self._module: LightningModule | None = None
        self._peers: list[KeptAverage] = []
        self._handles: list[RemovableHandle] = []
        self._loaded: dict[str, Any] | None = None

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the average before it is used: validated, saved, or left in the module."""

    @property
    def beginning(self) -> str:
        """When there will be an average, for an error."""
        return "it begins with the first update"

    def average_weights(self) -> dict[str, Tensor]:
        """Return a copy of the average, name to tensor.

        Raises:
            UserError: There is none yet.
        """
        return {name: tensor.clone() for name, tensor in self._existing().average().items()}

    def raw_weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that the optimizer made, name to tensor.

        Raises:
            UserError: There was no fit yet.
        """
        if self._module is None:
            raise UserError("There are no raw weights before a fit. Put the callback into a Trainer and fit.")
        return {name: tensor.detach().clone() for name, tensor in self._raw(self._module).items()}

    def _raw(self, module: nn.Module) -> dict[str, Tensor]:
        for callback in [self, *self._peers]:  # another average may have taken the raw weights' place
            if callback._average is not None and callback._average.holds_average:
                return callback._average.own()
        return tensors_of(module) if self._average is None else self._average.own()

    @contextmanager
    def averaged(self, module: nn.Module) -> Iterator[nn.Module]:
        """Have `module` hold the average within the block: the one that is trained, or another of its kind.

        Args:
            module: Gets its own weights back when the block ends.

        Raises:
            UserError: There is no average yet, or `module` has other weights.
        """
        average = self._existing()
        if module is average.module:
            with average.inside():
                yield module
            return
        values, theirs = average.average(), tensors_of(module)
        wrong = [name for name in theirs if name not in values or values[name].shape != theirs[name].shape]
        if wrong:
            raise UserError(
                f"The average is of another module: {len(wrong)} of {len(theirs)} tensors do not fit, such "
                f"as {wrong[0]}. Give a module that is built as the trained one was."
            )
        with carrying(module, values):
            yield module

    def _existing(self) -> WeightAverage:
        if self._average is None:
            raise UserError(f"There is no average yet after {self.steps} optimizer steps: {self.beginning}.")
        return self._average

    def _adopt(self, trainer: Trainer, averages: dict[str, dict[str, Tensor]]) -> None:
        """Take up the average of a checkpoint, whose weights the module now holds."""
        key, self._loaded = key_in(self, trainer, averages), None
        if key is not None:
            self._average = WeightAverage(trainer.lightning_module, device=self.device)
            self._average.load(averages[key])

    def _unhook(self) -> None:
        while self._handles:
            self._handles.pop().remove()


def averages_of(trainer: Trainer) -> list[KeptAverage]:
    """Return the averages of a Trainer, in the order of its callbacks."""
    return [callback for callback in trainer.callbacks if isinstance(callback, KeptAverage)]  # type: ignore[attr-defined]


def serving(trainer: Trainer) -> KeptAverage | None:
    """Return the average that is validated and saved in the module's place: the first one that has begun."""
    return next((kept for kept in averages_of(trainer) if kept._average is not None), None)


def begin_serving(trainer: Trainer) -> None:
    """Have every checkpoint take the average in the place of the module's weights."""
    of_module = trainer.strategy.lightning_module_state_dict

    def averaged_state_dict() -> dict[str, Any]:
        kept = serving(trainer)
        if kept is None:
            return of_module()
        if not trainer.interrupted:
            kept.prepare(trainer, trainer.lightning_module)
        return kept._existing().state_dict(of_module)

    vars(trainer.strategy).setdefault(_METHOD, averaged_state_dict)


def end_serving(trainer: Trainer) -> None:
    """Have checkpoints take the module's weights again."""
    vars(trainer.strategy).pop(_METHOD, None)


def end_averages(trainer: Trainer) -> None:
    """End all averages of a fit: the one that is validated is left in the module. Once more does nothing."""
    end_serving(trainer)
    first = serving(trainer)
    for callback in averages_of(trainer):
        callback._unhook()
        if callback._average is not None:
            callback.prepare(trainer, trainer.lightning_module)
            if callback is not first:
                callback._average.settle()
    if first is not None and not first._existing().holds_average:
        first._existing().exchange()


def settle_averages(trainer: Trainer) -> None:
    """End all averages, and have them copied, so that the module may take other weights."""
    end_averages(trainer)
    for callback in averages_of(trainer):
        if callback._average is not None:
            callback._average.settle()


@contextmanager
def served_weights(trainer: Trainer) -> Iterator[None]:
    """Have the module hold, within the block, the weights that a checkpoint would hold."""
    kept = serving(trainer)
    if kept is None:
        yield
        return
    kept.prepare(trainer, trainer.lightning_module)
    with kept._existing().inside():
        yield
