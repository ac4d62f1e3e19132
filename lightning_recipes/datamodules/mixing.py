"""Mixup and cutmix of training batches, and how long they last."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..layers import mix
from ..utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Blend each training sample with another of its batch; evaluation never does.

    λ ~ Beta(α, α) is the share that a sample keeps, drawn for each sample. Where both kinds are on, each
    batch takes one of them, either as often. Targets are float32 (B, K) in every training batch, mixed or
    not: with class weights, torch scales the loss of hard targets otherwise than that of soft ones, which
    would change the gradients at `off_epoch`.

    Args:
        mixup: α of mixup; 0 takes none. 0.2 makes blends of 0.9 and 0.1 rather than of 0.6 and 0.4.
        cutmix: α of cutmix; 0 takes none. The paper takes 1.
        off_epoch: The first epoch, from 0, without any; None never ends it.

    Raises:
        UserError: A value out of its bounds, or neither kind.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018; Yun et al., "CutMix", 2019.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    off_epoch: int | None = None

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) <= 1000:
                raise UserError(
                    f"`mix.{name}` must lie in [0, 1000], got {getattr(self, name)}. "
                    "To leave it out, set it to 0."
                )
        if not self.mixup and not self.cutmix:
            raise UserError(
                "`mix` needs `mixup` or `cutmix` above 0, got neither. To mix nothing, set `mix: null`."
            )
        if self.off_epoch is not None and self.off_epoch < 0:
            raise UserError(
                f"`mix.off_epoch` must be at least 0, got {self.off_epoch}. To mix always, set it to null."
            )

    def __call__(
        self, images: Tensor, targets: Tensor, *, num_classes: int, epoch: int, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Return a batch mixed, or with its targets made soft once mixing is off.

        Args:
            images: (B, C, H, W); the samples stand in random order.
            targets: int64 (B,) or float32 (B, K).
            num_classes: K.
            epoch: From 0.
            generator: Where all draws come from.

        Returns:
            Images (B, C, H, W) and targets, float32 (B, K).
        """
        if self.off_epoch is not None and epoch >= self.off_epoch:
            return images, mix.soft_targets(targets, num_classes)
        mix.require_partners(len(images))
        batch, height, width = len(images), *images.shape[2:]
        cuts = not self.mixup or (self.cutmix > 0 and bool(torch.rand((), generator=generator) < 0.5))
        lam = mix.draw_lam(self.cutmix if cuts else self.mixup, batch, generator)
        partner = torch.arange(batch).roll(1)  # the neighbour in a shuffled batch: never the sample itself
        if not cuts:
            return mix.mixup(images, targets, lam=lam, permutation=partner, num_classes=num_classes)
        row = torch.randint(height, (batch,), generator=generator)
        column = torch.randint(width, (batch,), generator=generator)
        box = mix.cut_box(lam, row, column, height=height, width=width)
        return mix.cutmix(images, targets, box=box, permutation=partner, num_classes=num_classes)
