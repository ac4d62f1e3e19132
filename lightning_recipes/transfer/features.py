"""What a backbone makes of images: its features, at the end and on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.errors import UserError
from ..utils.modes import evaluating


@torch.no_grad()
def extract(
    backbone: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return the features of all images, and their targets: one forward pass in eval mode, no gradients.

    Args:
        backbone: Images (B, C, H, W) to features (B, D).
        batches: Of images and targets.
        device: Where the backbone lies.

    Returns:
        float32 (N, D) and (N,) or (N, K), in the order of the batches, in main memory.

    Raises:
        UserError: There is no batch.

    >>> images, targets = torch.ones(2, 1, 2, 2), torch.tensor([0, 1])
    >>> extract(nn.Flatten(), [(images, targets)])[0].shape
    torch.Size([2, 4])
    """
    features, targets = [], []
    with evaluating(backbone):
        for images, labels in batches:
            features.append(backbone(images.to(device)).float().cpu())
            targets.append(labels.cpu())
    if not features:
        raise UserError("Cannot take features of an empty split. Check the splits' fractions.")
    return torch.cat(features), torch.cat(targets)


def stage_names(backbone: Any) -> list[str]:  # noqa: ANN401 - timm's classes
    """Return the names of the stages at which a timm backbone can be tapped, input first.

    Raises:
        UserError: It cannot be.

    >>> import timm
    >>> stage_names(timm.create_model("test_resnet", num_classes=0))
    ['act1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    if not callable(getattr(backbone, "forward_intermediates", None)):
        raise UserError(
            f"{type(backbone).__name__} has no `forward_intermediates`: its stages cannot be tapped. "
            "Take one of timm's that has it, such as a ResNet, an EfficientNet, a ConvNeXt or a ViT."
        )
    return [str(info["module"]) for info in backbone.feature_info]


def chosen_stages(names: Sequence[str], stages: int | Sequence[str] | None) -> list[int]:
    """Return the indices of the stages that are asked for.

    Args:
        names: All stages, input first.
        stages: Some of them by name; or so many of the last; or None for all.

    Raises:
        UserError: There is no such stage, or there are fewer.

    >>> chosen_stages(["stem", "layer1", "layer2"], 2), chosen_stages(["stem", "layer1"], ["stem"])
    ([1, 2], [0])
    """
    if stages is None:
        return list(range(len(names)))
    if isinstance(stages, int):
        if not 1 <= stages <= len(names):
            raise UserError(
                f"`stages` must lie in 1..{len(names)}, the stages of the backbone ({', '.join(names)}), "
                f"got {stages}."
            )
        return list(range(len(names) - stages, len(names)))
    if not stages:
        raise UserError(f"`stages` must name one or more of {', '.join(names)}, got none.")
    if unknown := [stage for stage in stages if stage not in names]:
        raise UserError(f"`stages` must be of {', '.join(names)}, got {', '.join(unknown)}.")
    return [index for index, name in enumerate(names) if name in stages]


@torch.no_grad()
def stage_features(
    backbone: Any,  # noqa: ANN401 - timm's classes
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    stages: int | Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the features of all images at several stages, averaged over positions: one forward pass.

    Args:
        backbone: One of timm's, with `forward_intermediates`.
        batches: Of images (B, C, H, W) and targets.
        stages: Some by name; or so many of the last; None for all.
        device: Where the backbone lies.

    Returns:
        Stage to float32 (N, D of the stage), and the targets, in the order of the batches, in main memory.

    Raises:
        UserError: More stages than there are, an unknown one, a backbone that cannot be tapped, or no batch.
    """
    names = stage_names(backbone)
    indices = chosen_stages(names, stages)
    found: dict[str, list[Tensor]] = {names[index]: [] for index in indices}
    targets = []
    with evaluating(backbone):
        for images, labels in batches:
            maps = backbone.forward_intermediates(
                images.to(device), indices=indices, output_fmt="NCHW", intermediates_only=True
            )
            for name, features in zip(found, maps, strict=True):  # (B, D, h, w)
                found[name].append(features.mean((2, 3)).float().cpu())
            targets.append(labels.cpu())
    if not targets:
        raise UserError("Cannot take features of an empty split. Check the splits' fractions.")
    return {name: torch.cat(parts) for name, parts in found.items()}, torch.cat(targets)


def images_of(batches: Iterable[tuple[Tensor, Tensor]], at_most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches until so many images have come.

    >>> [len(x) for x, _ in images_of([(torch.zeros(3, 1), torch.zeros(3))] * 3, 4)]
    [3, 1]
    """
    left = at_most
    for images, targets in batches:
        yield images[:left], targets[:left]
        left -= len(images)
        if left <= 0:
            return
