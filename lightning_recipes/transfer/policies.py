"""When which part of a backbone is trained."""

from __future__ import annotations

from math import inf
from typing import Literal, get_args

from ..utils.errors import UserError, did_you_mean

PolicyName = Literal["scratch", "linear_probe", "finetune", "probe_then_finetune", "gradual_unfreeze"]


def first_trained_stage(
    policy: PolicyName,
    epoch: int,
    *,
    n_stages: int,
    frozen: int = 0,
    probe_epochs: int = 0,
    unfreeze_every: int = 1,
) -> int:
    """Return the first of a backbone's stages that learns in an epoch; `n_stages` when only the head does.

    `scratch` trains all; `finetune` all but the first `frozen` stages; `linear_probe` the head alone;
    `probe_then_finetune` the head alone for `probe_epochs`, and then as `finetune`; `gradual_unfreeze` begins
    with the head alone and adds a stage, from the top, every `unfreeze_every` epochs.

    Args:
        policy: One of the five.
        epoch: From 0.
        n_stages: Stages of the backbone.
        frozen: Stages, from the input, that are never trained.
        probe_epochs: Epochs of the head alone.
        unfreeze_every: Epochs from one stage to the next, at least 1.

    Raises:
        UserError: There is no such policy.

    Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    2022 (probe, then fine-tune); Howard and Ruder, "Universal Language Model Fine-tuning", 2018 (gradual).

    >>> [first_trained_stage("gradual_unfreeze", epoch, n_stages=3) for epoch in range(5)]
    [3, 2, 1, 0, 0]
    >>> [first_trained_stage("probe_then_finetune", epoch, n_stages=3, probe_epochs=2) for epoch in range(4)]
    [3, 3, 0, 0]
    """
    policies = get_args(PolicyName)
    if policy not in policies:
        raise UserError(
            f"`policy` must be one of {', '.join(policies)}, got {policy!r}.{did_you_mean(policy, policies)}"
        )
    if policy == "scratch":
        return 0
    if policy == "finetune":
        return frozen
    if policy == "linear_probe":
        return n_stages
    if policy == "probe_then_finetune":
        return n_stages if epoch < probe_epochs else frozen
    return max(frozen, n_stages - epoch // unfreeze_every)


def probing_epochs(probe_epochs: float, max_epochs: int | None) -> int:
    """Return for how many epochs the head is trained alone: of a fraction at least one, and not all.

    Args:
        probe_epochs: A number of epochs, or a fraction of the run in (0, 1).
        max_epochs: Epochs of the run; None or -1 when it has no such end.

    Raises:
        UserError: A fraction of a run without an end, or an argument out of its bounds.

    >>> probing_epochs(3, None), probing_epochs(0.25, 10)
    (3, 2)
    """
    if not 0 <= probe_epochs < inf or (probe_epochs > 1 and probe_epochs != int(probe_epochs)):
        raise UserError(
            f"`probe_epochs` must be a whole number of epochs or a fraction in (0, 1), got {probe_epochs}."
        )
    if not 0 < probe_epochs < 1:
        return int(probe_epochs)
    if max_epochs is None or max_epochs < 1:
        raise UserError(
            f"`probe_epochs: {probe_epochs}` is a fraction of the run, which has no `max_epochs`. "
            "Give a number of epochs, or set `max_epochs`."
        )
    return max(min(round(probe_epochs * max_epochs), max_epochs - 1), 1)
