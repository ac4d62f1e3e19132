"""The members of a snapshot ensemble: taken, validated, chosen, and pooled into one file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from ..ensembles import pool_checkpoints, read_checkpoint
from ..scores import accuracy, nll, select_members
from ..utils.errors import UserError
from ..utils.files import save_whole
from .kept_average import served_weights
from .validation import predict_validation

Predict = Callable[[LightningModule, Any], tuple[Tensor, Tensor]]
_KEPT = ("state_dict", "hyper_parameters", "pytorch-lightning_version", "epoch", "global_step")


@dataclass
class Member:
    """A member of a snapshot ensemble.

    Attributes:
        path: Its checkpoint, which can also be tested and used alone.
        cycle: Of the run, from 1.
        step: Optimizer steps made when it was taken.
        epoch: The epoch that it was taken in, from 0.
        acc: Its validation accuracy; None where it could not be validated.
        nll: Its validation negative log-likelihood.
        kept: Whether it is part of the ensemble.
    """

    path: str
    cycle: int
    step: int
    epoch: int
    acc: float | None = None
    nll: float | None = None
    kept: bool = True


class Snapshots:
    """The members so far, their files and their validation.

    Args:
        directory: Where the files are written: `member-N.ckpt` and `ensemble.ckpt`.
        predict: Module and batch to probabilities (B, K) and targets (B,).
        drop_weak: Leave members out that make the ensemble worse on the validation data.
    """

    def __init__(self, directory: Path, predict: Predict, *, drop_weak: bool) -> None:
        self.directory, self.predict, self.drop_weak = directory, predict, drop_weak
        self.members: list[Member] = []
        self._probabilities: list[Tensor | None] = []  # of each member on the validation data, (N, K)
        self._targets: Tensor | None = None  # (N,)

    def take(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and validate the weights of this moment as the next member. All ranks must call it."""
        cycle = len(self.members) + 1
        member = Member(
            str(self.directory / f"member-{cycle}.ckpt"), cycle, trainer.global_step, trainer.current_epoch
        )
        with served_weights(trainer):
            probabilities = self._validate(trainer, member)
        whole = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
        checkpoint = {key: whole[key] for key in _KEPT if key in whole}
        kind = type(pl_module)
        ours = {"class_path": f"{kind.__module__}.{kind.__qualname__}", **whole.get("lightning_recipes", {})}
        checkpoint["lightning_recipes"] = ours
        if probabilities is not None:
            checkpoint["validation"] = {"probabilities": probabilities, "targets": self._targets}
        self.members.append(member)
        self._probabilities.append(probabilities)
        if trainer.is_global_zero:
            self.directory.mkdir(parents=True, exist_ok=True)
            save_whole(checkpoint, member.path)
        trainer.strategy.barrier("snapshot")
        self._choose()

    def _validate(self, trainer: Trainer, member: Member) -> Tensor | None:
        """Score a member, and return its probabilities; None, and say why, where there are none."""
        try:
            validated = predict_validation(trainer, self.predict)
            if validated is None:
                return None
            if not bool(validated[0].isfinite().all()):
                member.kept = False
                rank_zero_warn(
                    f"The member of cycle {member.cycle} is left out: what it predicts is not finite. Lower "
                    "the learning rate, or clip the gradients."
                )
                return None
            member.acc, member.nll = accuracy(*validated), nll(*validated)
            probabilities, self._targets = validated
            return probabilities
        except Exception as error:  # the training of hours must not end here
            rank_zero_warn(
                f"The member of cycle {member.cycle} is not validated, and is kept: {type(error).__name__}: "
                f"{error} Override `SnapshotEnsemble.predict` to give probabilities and targets of a batch."
            )
            return None

    def _choose(self) -> None:
        """Choose the members of the ensemble anew, from all that there are."""
        pairs = zip(self.members, self._probabilities, strict=True)
        scored = [(member, each) for member, each in pairs if each is not None]
        unknown = any(member.kept and member.acc is None for member in self.members)
        if not self.drop_weak or self._targets is None or unknown:
            return
        kept = select_members(torch.stack([each for _, each in scored]), self._targets)
        for number, (member, _) in enumerate(scored):
            member.kept = number in kept

    def pooled(self) -> tuple[float, float] | None:
        """Return accuracy and NLL of the members that are kept, on the validation data."""
        kept = [
            each
            for each, member in zip(self._probabilities, self.members, strict=True)
            if each is not None and member.kept
        ]
        if not kept or self._targets is None:
            return None
        mean = torch.stack(kept).mean(0)
        return accuracy(mean, self._targets), nll(mean, self._targets)

    def tell(self, trainer: Trainer, cycles: int) -> None:
        """Say, and log, how good the last member and the ensemble are."""
        member, pooled = self.members[-1], self.pooled()
        if pooled is None or member.acc is None or member.nll is None:
            return
        kept = sum(each.kept for each in self.members)
        rank_zero_info(
            f"Cycle {member.cycle} of {cycles}: member {member.acc:.2%}, NLL {member.nll:.4f}; "
            f"ensemble of {kept}: {pooled[0]:.2%}, NLL {pooled[1]:.4f}."
        )
        name = self.directory.name
        metrics = {
            f"{name}/member_acc": member.acc,
            f"{name}/member_nll": member.nll,
            f"{name}/ensemble_acc": pooled[0],
            f"{name}/ensemble_nll": pooled[1],
        }
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)

    def pool(self, trainer: Trainer) -> None:
        """Write the members that are kept into one file, `ensemble.ckpt`."""
        kept = [member for member in self.members if member.kept]
        if self.members and not kept:
            rank_zero_warn("No member of the ensemble is left: none was finite. Nothing was pooled.")
        if not kept or not trainer.is_global_zero:
            return
        path = self.directory / "ensemble.ckpt"
        names = [f"cycle {member.cycle}" for member in kept]
        save_whole(pool_checkpoints([read_checkpoint(member.path) for member in kept], names), path)
        left_out = [str(member.cycle) for member in self.members if not member.kept]
        rank_zero_info(
            f"{path}: an ensemble of {len(kept)} of {len(self.members)} members"
            + (f"; left out as weak: of cycle {', '.join(left_out)}." if left_out else ".")
        )

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what is known of the members; their weights are in their files, which may be moved."""
        return [{**asdict(member), "path": Path(member.path).name} for member in self.members]

    def load_state_dict(self, state_dict: list[dict[str, Any]], trainer: Trainer) -> None:
        """Take up the members of a run that was cut off, from beside its checkpoint to where this one writes.

        Raises:
            UserError: The file of a member is gone.
        """
        resumed = Path(str(trainer.ckpt_path or self.directory))
        places = [folder / self.directory.name for folder in resumed.parents[:2]] + [self.directory]
        for values in state_dict:
            member = Member(**{**values, "path": str(self.directory / values["path"])})
            found = next((p / values["path"] for p in places if (p / values["path"]).is_file()), None)
            if found is None:
                searched = ", ".join(dict.fromkeys(str(place) for place in places))
                raise UserError(
                    f"The member of cycle {member.cycle} is gone: there is no {values['path']} in {searched}."
                    " Put it back, or begin the run anew."
                )
            checkpoint = read_checkpoint(found)
            if found != Path(member.path) and trainer.is_global_zero:
                self.directory.mkdir(parents=True, exist_ok=True)
                save_whole(checkpoint, member.path)
            validated = checkpoint.get("validation")
            self._probabilities.append(None if validated is None else validated["probabilities"])
            self._targets = self._targets if validated is None else validated["targets"]
            self.members.append(member)
