"""Transfer learning as one setting: what is frozen, when, and at which rates."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from ..transfer import (
    Depths,
    Freezer,
    PolicyName,
    check_groups,
    depths,
    first_trained_stage,
    layerwise_rates,
    norm_layers,
    probing_epochs,
    rate_shares,
    scale_peaks,
    schedulers_of,
    whole,
)
from ..utils.errors import UserError, did_you_mean
from ..utils.overrides import override


class FineTuning(Callback):
    """Trains a pretrained backbone by a policy: probe, fine-tune, both in turn, or stage after stage.

    All parameters are in the optimizer from the first step on, in groups named by their depth, so that a
    schedule holds for the whole run. What is frozen follows from the epoch alone, so that a resumed run goes
    on as if it had never been cut off. Frozen layers evaluate: their BatchNorm statistics do not move.

    Args:
        policy: `scratch` (all learns at one rate), `linear_probe` (the head alone), `finetune` (all),
            `probe_then_finetune` (the head alone for `probe_epochs`, then all) or `gradual_unfreeze` (the
            head, then a stage more every `unfreeze_every` epochs).
        backbone: The attribute of the module that is the backbone; everything else is the head.
        backbone_scale: Learning rate of the backbone's last layer, relative to the head.
        layer_decay: Learning rate of each layer relative to the next one, in (0, 1].
        freeze_until: Never train what lies before this part of the backbone (`layer3`), or so many stages.
        probe_epochs: Epochs of the head alone, or a fraction of the run in (0, 1).
        unfreeze_every: Epochs from one stage to the next.
        freeze_norms: Keep every BatchNorm of the backbone frozen also while its other layers learn, but for
            `scratch`.

    Raises:
        UserError: An argument out of its bounds; a module without such a backbone; a backbone that does not
            say how deep its layers lie, where that matters; a strategy that shards parameters.

    Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    2022.
    """

    def __init__(
        self,
        policy: PolicyName = "probe_then_finetune",
        *,
        backbone: str = "backbone",
        backbone_scale: float = 0.1,
        layer_decay: float = 1.0,
        freeze_until: int | str | None = None,
        probe_epochs: float = 0.2,
        unfreeze_every: int = 1,
        freeze_norms: bool = True,
    ) -> None:
        if not backbone_scale > 0:
            raise UserError(
                f"`backbone_scale` must be above 0, got {backbone_scale}. To freeze it, take `linear_probe`."
            )
        if not 0 < layer_decay <= 1:
            raise UserError(f"`layer_decay` must lie in (0, 1], got {layer_decay}. 0.75 is usual.")
        if unfreeze_every < 1:
            raise UserError(f"`unfreeze_every` must be at least 1, got {unfreeze_every}.")
        first_trained_stage(policy, 0, n_stages=0)
        probing_epochs(probe_epochs, 1)
        if policy == "scratch" and freeze_until is not None:
            raise UserError(f"`scratch` trains all, got `freeze_until: {freeze_until}`. Take `finetune`.")
        self.policy: PolicyName = policy
        self.backbone = backbone
        self.backbone_scale, self.layer_decay = backbone_scale, layer_decay
        self.freeze_until = freeze_until
        self.probe_epochs, self.unfreeze_every = probe_epochs, unfreeze_every
        self.freeze_norms = freeze_norms
        self._freezer: Freezer | None = None
        self._release: Callable[[], None] | None = None
        self._probing: int | None = None  # epochs of the head alone in this run
        self._resumed: list[int] | None = None  # groups of each optimizer in the checkpoint

    @property
    def state_key(self) -> str:
        """Tell two backbones of one module apart."""
        return f"{type(self).__qualname__}{{'backbone': {self.backbone!r}}}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the optimizers, when they are built, cut their groups by depth.

        Raises:
            UserError: The strategy shards parameters.
        """
        if stage != "fit":
            return
        plain = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        if not plain or isinstance(trainer.strategy, DeepSpeedStrategy):
            raise UserError(
                f"FineTuning works on one device and with DDP, got {type(trainer.strategy).__name__}. "
                "Set `strategy: ddp`."
            )
        self._leave(pl_module)
        self._probing = self._resumed = None
        if self.policy in ("scratch", "linear_probe"):
            return

        def with_rates(configure: Callable[[], Any]) -> Any:  # noqa: ANN401 - one of the forms that Lightning takes
            backbone = self._part(pl_module)
            shares = rate_shares(
                backbone,
                self._depths(backbone),
                backbone_scale=self.backbone_scale,
                layer_decay=self.layer_decay,
            )
            with layerwise_rates(shares) as cuts:
                try:
                    configured = configure()
                except ValueError as error:
                    if not re.search("param_groups|lr_lambdas|min_lrs", str(error)):
                        raise
                    raise UserError(
                        f"{error} FineTuning cuts the groups by depth: there are {len(cuts)} now. Give one "
                        "value for all, or as many as `optimizer.param_groups` has by then."
                    ) from error
            scale_peaks(schedulers_of(configured), cuts)
            return configured

        self._release = override(pl_module, "configure_optimizers", with_rates)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the backbone: by now the module's `setup` has run, and the optimizers are there."""
        backbone = self._part(pl_module)
        self._take_back()
        self._lies = self._depths(backbone)
        frozen = 0 if self.freeze_until is None else self._lies.stage(self.freeze_until)
        self._settings = {"n_stages": len(self._lies.names), "frozen": frozen}
        if self.policy == "probe_then_finetune":
            if self._probing is None:
                self._probing = probing_epochs(self.probe_epochs, trainer.max_epochs)
            self._settings["probe_epochs"] = self._probing
            rehearsal = trainer.fast_dev_run  # type: ignore[attr-defined]
            if 0 < (trainer.max_epochs or -1) <= self._probing and not rehearsal:
                rank_zero_warn(
                    f"FineTuning probes for {self._probing} epochs, and the run has {trainer.max_epochs}: "
                    "the backbone never learns. Lower `probe_epochs`, or train longer."
                )
        self._refuse_what_cannot_learn(trainer, pl_module, backbone)
        if self._resumed is not None:
            check_groups(self._resumed, [len(o.param_groups) for o in trainer.optimizers])
        self._freezer = Freezer(backbone)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what the epoch asks for: one that was cut off within has no `on_train_epoch_start`."""
        self._follow(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what the epoch asks for."""
        self._follow(trainer, pl_module)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Keep frozen layers evaluating, also where the module told all of them to train."""
        if self._freezer is not None:
            self._freezer.keep_still()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Say what a gradient scaler says in riddles.

        Raises:
            UserError: It is to step an optimizer that has frozen parameters only.
        """
        if self._freezer is None or getattr(trainer.precision_plugin, "scaler", None) is None:
            return
        if all(p in self._freezer.frozen for group in optimizer.param_groups for p in group["params"]):
            raise UserError(
                f"fp16 cannot step a {type(optimizer).__name__} whose parameters are all frozen in epoch "
                f"{trainer.current_epoch}. Take `precision: bf16-mixed`, or one optimizer for all parameters."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return how long the probe is, which a run that is resumed for longer keeps to."""
        return {"probe_epochs": self.probe_epochs, "probing": self._probing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that back, unless other settings are given now."""
        if state_dict["probe_epochs"] == self.probe_epochs:
            self._probing = state_dict["probing"]

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look how the groups were cut in the run that is resumed."""
        states = checkpoint.get("optimizer_states")
        self._resumed = [len(state["param_groups"]) for state in states] if states else None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        self._leave(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module as it was."""
        self._leave(pl_module)

    def _follow(self, trainer: Trainer, pl_module: LightningModule) -> None:
        freezer, lies = self._freezer, self._lies
        assert freezer is not None  # since `on_fit_start`
        first = first_trained_stage(
            self.policy, trainer.current_epoch, unfreeze_every=self.unfreeze_every, **self._settings
        )
        parameters = dict(freezer.module.named_parameters())
        frozen: set[Tensor] = {p for name, p in parameters.items() if lies.stages[name] < first}
        keeps = self.freeze_norms and self.policy != "scratch"
        norms = norm_layers(freezer.module) if keeps else []
        frozen.update(p for layer in norms for p in layer.parameters())
        if not freezer.freeze(frozen, layers=norms):
            return
        learning = lies.names[first:]
        what = (
            f" and {', '.join(learning) if first else 'all'} of `{self.backbone}`" if learning else " alone"
        )
        count = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        rank_zero_info(
            f"FineTuning, epoch {trainer.current_epoch}: training the head{what}, {count:,} parameters."
        )
        if isinstance(trainer.strategy, DDPStrategy):
            # DDP knows what learned when it was made, and would leave the rest unsynchronised
            trainer.strategy.model = pl_module
            trainer.strategy.configure_ddp()

    def _refuse_what_cannot_learn(
        self, trainer: Trainer, pl_module: LightningModule, backbone: nn.Module
    ) -> None:
        inside = set(backbone.parameters())
        outside = any(p.requires_grad and p not in inside for p in pl_module.parameters())
        if not outside and self.policy not in ("scratch", "finetune"):
            raise UserError(
                f"`{self.policy}` begins with what lies outside of `{self.backbone}`, where "
                f"{type(pl_module).__name__} has no parameters that learn. Make its last layer a part of its "
                "own, or take `finetune`."
            )
        data = getattr(trainer, "datamodule", None)
        if getattr(data, "features_of", None) == self.backbone and self.policy != "linear_probe":
            raise UserError(
                f"`{self.policy}` trains the backbone, whose features {type(data).__name__} has computed "
                "once and for all. Take `linear_probe`, or the images themselves."
            )

    def _part(self, pl_module: LightningModule) -> nn.Module:
        try:
            part = pl_module.get_submodule(self.backbone)
            return getattr(part, "_orig_mod", part)  # within what `torch.compile` returns: its names
        except AttributeError:
            parts = [name for name, _ in pl_module.named_children()]
            raise UserError(
                f"`backbone` must name a part of {type(pl_module).__name__}, got {self.backbone!r}."
                f"{did_you_mean(self.backbone, parts)} Its parts are {', '.join(parts)}."
            ) from None

    def _depths(self, backbone: nn.Module) -> Depths:
        """Return the depths, or one for all where they do not matter."""
        matters = self.layer_decay != 1 or self.freeze_until is not None or self.policy == "gradual_unfreeze"
        return depths(backbone) if matters else whole(backbone)

    def _take_back(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None

    def _leave(self, pl_module: LightningModule) -> None:
        self._take_back()
        if self._freezer is not None:
            self._freezer.restore(training=pl_module.training)
            self._freezer = None
