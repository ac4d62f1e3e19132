"""L1, L2 or both (elastic net) on the weights, of any module and with any optimizer."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from ..optimizers import decayed_weights
from ..penalties import add_elastic_net_gradient, elastic_net
from ..utils.errors import UserError
from ..utils.patterns import matching
from .sharding import refuse_flat_shards


class WeightPenalty(Callback):
    r"""Adds :math:`\lambda_1 \sum |w| + \lambda_2 \sum w^2` to what is minimised.

    Its gradient, :math:`\lambda_1 \operatorname{sign}(w) + 2 \lambda_2 w`, is added to that of the loss right
    before each optimizer step, of this optimizer's weights and before clipping: what the sum would have
    given, without a graph. The loss that is logged stays that of the module; the penalty is logged beside it,
    as `train/NAME`, each time that the Trainer logs a step.

    Only kernels and matrices are penalised, not biases and norms, nor what a module names in
    `no_weight_decay()`; nor weights that are frozen.

    Args:
        l1: λ₁. Pushes each weight to 0 by a constant force.
        l2: λ₂. Pushes in proportion to the weight; an SGD's `weight_decay` of λ is an `l2` of λ/2.
        pattern: Names of the weights, as `named_parameters()` has them: `head.*`, `*.conv2.weight`.
        name: What the penalty is logged as. Two instances need two names.

    Raises:
        UserError: A factor is negative, or both are 0; the pattern matches no weight (shows the names).

    Source: Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996; Zou and Hastie,
    "Regularization and Variable Selection via the Elastic Net", 2005.

    >>> WeightPenalty(l1=1e-5, l2=1e-4).state_key
    "WeightPenalty{'name': 'penalty', 'l1': 1e-05, 'l2': 0.0001, 'pattern': '*'}"
    """

    def __init__(
        self, l1: float = 1e-5, *, l2: float = 0.0, pattern: str = "*", name: str = "penalty"
    ) -> None:
        for factor, value in (("l1", l1), ("l2", l2)):
            if not 0 <= value < float("inf"):
                raise UserError(f"`{factor}` must be at least 0, got {value}.")
        if not l1 and not l2:
            raise UserError(
                "`l1` or `l2` must be above 0, got 0 for both. To penalise nothing, leave the callback out."
            )
        self.l1, self.l2, self.pattern, self.name = l1, l2, pattern, name
        self._weights: dict[int, nn.Parameter] = {}

    @property
    def state_key(self) -> str:
        """Apart for each setting."""
        return self._generate_state_key(name=self.name, l1=self.l1, l2=self.l2, pattern=self.pattern)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the weights."""
        refuse_flat_shards(self, trainer)
        found = matching(decayed_weights(pl_module), self.pattern, what="weights")
        self._weights = {id(weight): weight for weight in found.values()}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Add the penalty's gradient: the gradients are whole, unscaled, averaged over ranks, not clipped."""
        held = [p for group in optimizer.param_groups for p in group["params"]]
        chosen = [p for p in held if id(p) in self._weights and p.requires_grad and p.grad is not None]
        gradients = [p.grad for p in chosen]
        if any(gradient.is_sparse for gradient in gradients):
            raise UserError(
                f"{type(self).__name__} cannot add to sparse gradients. Build the embedding with "
                "`sparse=False`, or leave it out by `pattern`."
            )
        add_elastic_net_gradient(
            chosen, gradients, l1=self.l1, l2=self.l2, scale=_factor(trainer, optimizer, chosen)
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Log the penalty of the weights as they now are, where this step is logged."""
        weights = [weight for weight in self._weights.values() if weight.requires_grad]
        if weights and trainer.loggers and trainer._logger_connector.should_update_logs:
            value = elastic_net(weights, l1=self.l1, l2=self.l2)
            pl_module.log(f"train/{self.name}", value, on_step=True, on_epoch=False, batch_size=1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the weights."""
        self._weights = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the weights."""
        self._weights = {}


def _factor(trainer: Trainer, optimizer: Optimizer, weights: list[nn.Parameter]) -> Tensor | None:
    """Return what the gradients are still multiplied by: a fused optimizer divides within its step."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not weights or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    scaled: Tensor = scaler.scale(torch.ones((), device=weights[0].device))
    return scaled
