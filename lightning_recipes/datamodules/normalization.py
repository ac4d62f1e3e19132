"""Which normalisation images get: what the weights know, or what the train split asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from ..preprocessing import Fitted, Normalization, Preprocessing
from ..utils.errors import UserError, did_you_mean

Normalize = Literal[
    "auto", "none", "mean_image", "channel_mean", "channel_mean_std", "pca", "whiten", "pretrained"
]


def check_normalize(normalize: str) -> None:
    """Refuse what is no mode.

    Raises:
        UserError: It is none.
    """
    modes = get_args(Normalize)
    if normalize not in modes:
        raise UserError(
            f"`normalize` must be one of {', '.join(modes)}, got {normalize!r}."
            f"{did_you_mean(normalize, modes)}"
        )


def choose_normalization(
    normalize: Normalize,
    *,
    channels: int,
    trainer: Trainer | None,
    fit: Callable[[Fitted], Normalization],
) -> Normalization:
    """Return what `normalize` asks for, and the module's own where it has one.

    Weights go with the normalisation that they were trained with. So what the module was fitted or loaded
    with goes before all that `normalize` says, but for a fit that begins anew, where a mode that is named
    (neither `auto` nor `pretrained`) is obeyed.

    Args:
        normalize: The mode.
        channels: Of the images.
        trainer: Whose module is asked for `preprocessing`, which it has once it was trained, and for
            `normalization`, which is a `Normalization` or mean and std, one a channel.
        fit: Fits one of these modes on the train split.

    Raises:
        UserError: The mode is `pretrained` and the module has no weights from elsewhere.
    """
    module = trainer.lightning_module if trainer else None
    trained, own = getattr(module, "preprocessing", None), getattr(module, "normalization", None)
    if isinstance(trained, Preprocessing) and not _begins(trainer):
        return trained.normalization
    if normalize in ("auto", "pretrained") and own is not None:
        return own if isinstance(own, Normalization) else Normalization(*own)
    if normalize == "none":
        return Normalization.none(channels)
    if normalize == "pretrained":
        raise UserError(
            "`normalize: pretrained` needs a backbone with pretrained weights. "
            "Set `pretrained: true`, give `weights`, or take `normalize: auto`."
        )
    return fit("channel_mean_std" if normalize == "auto" else normalize)


def _begins(trainer: Trainer | None) -> bool:
    """Return whether a fit begins with the weights as they are, instead of resuming one."""
    return trainer is not None and trainer.state.fn == TrainerFn.FITTING and trainer.ckpt_path is None
