"""Layer-sequential unit-variance initialization on the first batch of a run."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden

from ..evidence.batches import moved
from ..evidence.freshness import looks_untrained
from ..evidence.scan import raw_batches
from ..initialization import unit_variance
from ..initialization.layers import matched_layers
from ..initialization.lsuv import check_settings
from ..utils.errors import UserError

_TRAINED: WeakSet[LightningModule] = WeakSet()  # modules of this process that have had a training batch
_SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy", "ModelParallelStrategy")


class LSUV(Callback):
    r"""Begin a run with orthonormal weights, scaled so that each layer's output has variance 1.

    .. math:: W_l \leftarrow W_l / \operatorname{std}(W_l * h_{l-1})

    layer after layer, on the first training batch as a training step is given it; with several processes, on
    all of theirs together. Neither the loader nor any random numbers notice. It happens once, before the
    first step of a module that has not been trained: not when a run is resumed, nor in a second fit.

    Args:
        pattern: Which linear layers and convolutions, by name, as a shell has it: `backbone.*`. Frozen ones
            are left alone.
        tol: How far a layer's standard deviation may be from 1.
        max_iterations: Most times that a layer is scaled.

    Raises:
        UserError: An argument out of its bounds, a pattern that matches nothing, weights that are trained or
            sharded, a layer whose output is constant.

    Source: Mishkin and Matas, "All you need is a good init", 2016.

    >>> LSUV("backbone.*", tol=0.1).stds
    {}
    """

    def __init__(self, pattern: str = "*", *, tol: float = 0.02, max_iterations: int = 10) -> None:
        check_settings(tol, max_iterations)
        self.pattern, self.tol, self.max_iterations = pattern, tol, max_iterations
        self.stds: dict[str, float] = {}
        """Standard deviation of each layer's output after it was scaled, in the order of the forward pass."""

    @property
    def state_key(self) -> str:
        """Apart for each choice of layers."""
        return self._generate_state_key(pattern=self.pattern, tol=self.tol, most=self.max_iterations)

    def state_dict(self) -> dict[str, Any]:
        """Return what the layers were scaled to."""
        return {"stds": dict(self.stds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was done before the run was cut off."""
        self.stds = dict(state_dict["stds"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew; a resumed fit then loads what was done."""
        if stage == "fit":
            self.stds = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Initialise the weights, before the first batch is taken."""
        if self.stds or trainer.global_step > 0:
            return
        if pl_module in _TRAINED:
            rank_zero_info("LSUV: the module has been trained in this process; its weights stay as they are.")
            return
        self._refuse(trainer, pl_module)
        batches = raw_batches(trainer.train_dataloader)
        try:
            batch = next(batches, None)
            if batch is not None:
                self._initialize(trainer, pl_module, moved(trainer, batch))
        finally:
            batches.close()

    def _refuse(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (strategy := type(trainer.strategy).__name__) in _SHARDED:
            raise UserError(f"LSUV needs whole weights; {strategy} shards them. Take `ddp`.")
        if type(self).forward_batch is LSUV.forward_batch and not is_overridden("forward", pl_module):
            raise UserError(
                f"{type(pl_module).__name__} has no `forward` for LSUV to run. Give it one, or override "
                "`LSUV.forward_batch`."
            )
        names = [f"{name}.weight" for name in matched_layers(pl_module, self.pattern)]
        if looks_untrained(pl_module, names=None if self.pattern == "*" else names) is False:
            raise UserError(
                f"The weights that `pattern` {self.pattern!r} matches look trained, in {len(names)} layers; "
                "LSUV would replace them. Leave it out, or give a pattern of new layers. Where they are not "
                "trained, call `lightning_recipes.initialization.lsuv` before the fit."
            )

    def _initialize(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:  # noqa: ANN401
        strategy = trainer.strategy
        with (
            trainer.precision_plugin.forward_context(),
            unit_variance(
                pl_module,
                pattern=self.pattern,
                tol=self.tol,
                max_iterations=self.max_iterations,
                total=lambda tensor: strategy.reduce(tensor, reduce_op="sum"),
            ) as stds,
        ):
            self.forward_batch(pl_module, batch)
        self.stds = stds
        rank_zero_info(f"LSUV scaled {len(stds)} layers to outputs of variance 1.")

    def forward_batch(self, pl_module: LightningModule, batch: Any) -> None:  # noqa: ANN401
        """Run a training batch through the module; override it where `forward` takes something else.

        Args:
            pl_module: Its BatchNorm layers normalise by the batch, all else evaluates.
            batch: As a training step is given it. By default its first part is the input.
        """
        pl_module(batch[0] if isinstance(batch, (list, tuple)) else batch)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Note that the module is trained from now on."""
        _TRAINED.add(pl_module)
