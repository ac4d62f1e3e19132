"""A bound on the norm of each unit's incoming weights."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ..penalties import limit_norms
from ..utils.errors import UserError
from ..utils.patterns import matching_layers
from .sharding import refuse_flat_shards

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


class MaxNorm(Callback):
    r"""After each optimizer step, scales the incoming weights of a unit back to :math:`\|w\|_2 \le c`.

    A unit is a row of a linear layer's matrix or an output channel of a convolution. The weights cannot
    explode, even at a high learning rate; those below the bound are not touched. Biases are left alone, and
    so are embeddings, whose rows are no units.

    Args:
        max_norm: c. 3 to 4 is usual.
        pattern: Names of layers, as `named_modules()` has them: `head`, `*.conv2`.

    Raises:
        UserError: `max_norm` is not above 0; the pattern matches no layer (shows the names).

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014,
    section 5.1.

    >>> MaxNorm(4.0, pattern="head").state_key
    "MaxNorm{'max_norm': 4.0, 'pattern': 'head'}"
    """

    def __init__(self, max_norm: float = 3.0, *, pattern: str = "*") -> None:
        if not max_norm > 0:
            raise UserError(
                f"`max_norm` must be above 0, got {max_norm}. To bound nothing, leave the callback out."
            )
        self.max_norm, self.pattern = max_norm, pattern
        self._layers: dict[int, nn.Module] = {}  # by the identity of their weight
        self._handles: list[RemovableHandle] = []

    @property
    def state_key(self) -> str:
        """Apart for each bound and each pattern."""
        return self._generate_state_key(max_norm=self.max_norm, pattern=self.pattern)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers."""
        refuse_flat_shards(self, trainer)
        layers = matching_layers(pl_module, self.pattern, _KINDS)
        weights = {name: layer._parameters.get("weight") for name, layer in layers.items()}
        self._layers = {id(w): layers[name] for name, w in weights.items() if w is not None}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the optimizers: a step that a gradient scaler leaves out is none."""
        for optimizer in trainer.optimizers:
            self._handles.append(optimizer.register_step_post_hook(self._limit))

    def _limit(self, optimizer: Optimizer, *_: Any) -> None:  # noqa: ANN401 - the arguments of its step
        held = [p for group in optimizer.param_groups for p in group["params"]]
        for weight in held:
            layer = self._layers.get(id(weight))
            if layer is not None and weight.requires_grad:
                limit_norms(
                    weight,
                    self.max_norm,
                    transposed=isinstance(layer, _TRANSPOSED),
                    groups=getattr(layer, "groups", 1),
                )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers."""
        self._leave()

    def _leave(self) -> None:
        self._layers = {}
        while self._handles:
            self._handles.pop().remove()
