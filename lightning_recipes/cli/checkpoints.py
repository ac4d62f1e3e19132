"""What a checkpoint says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from .. import callbacks
from ..modules import EnsembleClassifier, ImageClassifier
from ..utils.classes import import_class
from ..utils.errors import UserError


def read_checkpoint(path: str) -> dict[str, Any]:
    """Return a checkpoint as plain data.

    Raises:
        UserError: There is no such file, or it is not a checkpoint of Lightning's.
    """
    if not Path(path).is_file():
        what = "a folder. Give one of its files" if Path(path).is_dir() else "which is not there"
        raise UserError(f"`ckpt_path` must be a checkpoint, got {path}, {what}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"`ckpt_path` {path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is no checkpoint of Lightning's. For bare weights, use `--model.weights`.")
    return checkpoint


def class_of(checkpoint: dict[str, Any], path: str) -> type[ImageClassifier | EnsembleClassifier]:
    """Return the module's class that wrote a checkpoint.

    Raises:
        UserError: It is neither an `ImageClassifier` nor an ensemble, or cannot be imported.
    """
    ours = checkpoint.get("lightning_recipes")
    if ours is None:
        raise UserError(
            f"{path} is a checkpoint of another module, not of an ImageClassifier. Give one of `fit`'s."
        )
    try:
        found = import_class(ours["class_path"])
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{path} was written by {ours['class_path']}, which cannot be imported: {error}. "
            "Put it on PYTHONPATH."
        ) from error
    if not (isinstance(found, type) and issubclass(found, (ImageClassifier, EnsembleClassifier))):
        raise UserError(f"{path} was written by {ours['class_path']}, which is not an ImageClassifier.")
    return found


def warn_of_missing_callbacks(path: str | None, trainer: Trainer) -> None:
    """Name our callbacks that a run was made with, and that the run which goes on from it lacks."""
    if path is None:
        return
    checkpoint = read_checkpoint(path)
    made_with = {key.partition("{")[0] for key in checkpoint.get("callbacks", {})} & set(callbacks.__all__)
    present = {type(callback).__name__ for callback in trainer.callbacks}  # type: ignore[attr-defined]
    if missing := sorted(made_with - present):
        averaged = " It trains on from the average of the weights." if "weight_averages" in checkpoint else ""
        options = " ".join(f"--trainer.callbacks+={name}" for name in missing)
        rank_zero_warn(
            f"{path} was made with {', '.join(missing)}, which this run lacks.{averaged} To go on as before, "
            f"add {options} with the settings of then, or the run's config.yaml."
        )
