"""A module whose checkpoint is enough to predict."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from torch import nn

from ..preprocessing import Normalization, Preprocessing
from ..utils.errors import UserError
from .backbones import pretrained_normalization

ELSEWHERE = {"pretrained": False, "weights": None}
"""Hyperparameters that say where weights came from: a file that holds them fetches none."""


class PortableModule(LightningModule):
    """Keeps class names and preprocessing in the checkpoint, beside the weights; a base of `ImageClassifier`.

    It expects the hyperparameters `backbone`, `in_chans`, `pretrained` and `weights`.
    """

    backbone: nn.Module
    class_names: list[str]
    preprocessing: Preprocessing | None = None
    """How eval images are made; known once a fit has begun or a checkpoint is loaded."""
    horizontal_flip: bool | None = None
    """Whether mirrored images keep their class, as the fit's datamodule says; None where it is not known."""

    @property
    def normalization(self) -> Normalization | None:
        """What the weights were trained with; None for fresh ones.

        `ImageDataModule` reads it. A loaded checkpoint brings its own.
        """
        if self.preprocessing is not None:
            return self.preprocessing.normalization
        if not (self.hparams["pretrained"] or self.hparams["weights"]) or not hasattr(
            self.backbone, "pretrained_cfg"
        ):
            return None
        return Normalization(*pretrained_normalization(self.backbone, self.hparams["in_chans"]))

    def on_fit_start(self) -> None:
        """Remember how the datamodule makes its images."""
        self.preprocessing = getattr(
            getattr(self.trainer, "datamodule", None), "preprocessing", self.preprocessing
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add all that predicting needs beside the weights."""
        checkpoint["lightning_recipes"] = {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "class_names": self.class_names,
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_dict(),
            "horizontal_flip": self.horizontal_flip,
        }
        hparams = checkpoint.get("hyper_parameters")
        if hparams is not None:  # the weights are in the checkpoint: building the module must fetch none
            checkpoint["hyper_parameters"] = {**hparams, **ELSEWHERE}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what `on_save_checkpoint` added.

        Raises:
            UserError: The checkpoint is another module's.
        """
        own, stored = self.state_dict(), checkpoint["state_dict"]
        wrong = [name for name in own if name not in stored or stored[name].shape != own[name].shape]
        if self.strict_loading and wrong:
            backbone = checkpoint.get("hyper_parameters", {}).get("backbone", "another module")
            raise UserError(
                f"The checkpoint is of {backbone}, not of this {type(self).__name__} with "
                f"{self.hparams['backbone']}: {len(wrong)} of {len(own)} tensors do not fit, such as "
                f"{wrong[0]}. Give the checkpoint's own settings, or start from its weights by `weights`."
            )
        ours = checkpoint.get("lightning_recipes")
        if ours is not None:
            self.class_names = ours["class_names"]
            self.horizontal_flip = ours.get("horizontal_flip")  # a file of older versions does not say it
            if ours["preprocessing"] is not None:
                self.preprocessing = Preprocessing.from_dict(ours["preprocessing"])
