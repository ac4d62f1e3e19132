"""Several views of an image at test time, and the mean of what a network says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import log
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ..utils.errors import UserError, did_you_mean

Views = Literal["none", "flip", "ten_crop", "multi_scale"]

BASE = 224
"""What the side of the network's images counts as; the scales below are in proportion."""
TEN_CROP = (256,)
MULTI_SCALE = (224, 256, 384, 480, 640)


def check_views(mode: str, *, mirror: bool = True, rotated: bool = False) -> None:
    """Refuse what `views` cannot give.

    Args:
        mode: Which views.
        mirror: Whether mirrored views are among them.
        rotated: Whether whole images were rotated (`pca`, `whiten`), so that their numbers have no place.

    Raises:
        UserError: There is no such mode, or it is nothing but the mirror image where none is allowed, or
            images that were rotated would have to be moved.
    """
    modes = get_args(Views)
    if mode not in modes:
        raise UserError(f"`tta` must be one of {', '.join(modes)}, got {mode!r}.{did_you_mean(mode, modes)}")
    if rotated and mode != "none":
        raise UserError(
            f"`tta: {mode}` moves pixels, but after `normalize: pca` or `whiten` a network's inputs are no "
            "pixels. Set `tta: none`, or train with another `normalize`."
        )
    if mode == "flip" and not mirror:
        raise UserError(
            "`tta: flip` shows mirrored images, but the data say `horizontal_flip: false`: left and right "
            "matter. Take `ten_crop`, which then leaves them out, or train with `horizontal_flip: true`."
        )


def views(images: Tensor, mode: Views, *, mirror: bool = True) -> Iterator[tuple[Tensor, int]]:
    """Yield the views of a batch one at a time, each with the number of times that it counts.

    `flip` is the image and its mirror image. `ten_crop` enlarges the image by 256/224 (bilinear) and takes
    corners and centre, each also mirrored. `multi_scale` does so at the scales {224, 256, 384, 480, 640}/224:
    50 views, of which the ten of the first scale are two, five times each.

    Args:
        images: float, (B, C, H, W), as the network takes them.
        mode: Which views.
        mirror: Whether mirrored views are among them.

    Yields:
        A view, (B, C, H, W), and its weight.

    Raises:
        UserError: There is no such mode, or it is nothing but the mirror image where none is allowed.

    Source: Krizhevsky, Sutskever and Hinton, 2012 (ten crops); He et al., 2016 (of several scales).

    >>> sum(weight for _, weight in views(torch.zeros(1, 3, 32, 32), "multi_scale"))
    50
    """
    check_views(mode, mirror=mirror)
    height, width = images.shape[-2:]
    if mode in ("none", "flip"):
        yield images, 1
        if mode == "flip":
            yield images.flip(-1), 1
        return
    for scale in TEN_CROP if mode == "ten_crop" else MULTI_SCALE:
        size = round(height * scale / BASE), round(width * scale / BASE)
        if size == (height, width):  # five times the same crop
            yield images, 5
            if mirror:
                yield images.flip(-1), 5
            continue
        enlarged = F.interpolate(images.float(), size, mode="bilinear", antialias=True).to(images.dtype)
        for view in crops(enlarged, (height, width), mirror=mirror):
            yield view, 1


def crops(images: Tensor, size: tuple[int, int], *, mirror: bool = True) -> Iterator[Tensor]:
    """Yield the corners (top left, top right, bottom left, bottom right) and the centre, then all mirrored.

    As torchvision's `five_crop` and `ten_crop`: the mirror image is cropped, not the crop mirrored, which
    differ by a pixel at the centre where a margin is odd.

    Args:
        images: (B, C, H, W).
        size: Height and width of a crop, pixels.
        mirror: Whether to yield the mirrored ones.

    Yields:
        (B, C, height, width).

    Raises:
        UserError: The crop is larger than the images.

    >>> [int(crop) for crop in crops(torch.arange(9).view(1, 1, 3, 3), (1, 1), mirror=False)]
    [0, 2, 6, 8, 4]
    """
    (height, width), (h, w) = images.shape[-2:], size
    if h > height or w > width:
        raise UserError(
            f"A crop may be at most as large as the images, {height} × {width} pixels, got {h} × {w}. Resize "
            "the images first."
        )
    bottom, right = height - h, width - w
    middle = round(bottom / 2), round(right / 2)
    for image in (images, images.flip(-1)) if mirror else (images,):
        for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right), middle):
            yield image[..., top : top + h, left : left + w]


def pooled_logits(logits: Iterable[tuple[Tensor, int]], *, multi_label: bool = False) -> Tensor:
    r"""Return logits whose probabilities are the mean of the views' probabilities.

    With :math:`\bar p = \sum_v w_v p_v / \sum_v w_v` these are :math:`\ln \bar p`, whose softmax is
    :math:`\bar p`, or :math:`\ln \bar p - \ln(1 - \bar p)`, whose sigmoid is. It is summed in logarithms:
    nothing underflows, and any loss of logits can be taken of it.

    Args:
        logits: Of each view (B, K), and its weight.
        multi_label: Whether a probability is a sigmoid of its own.

    Returns:
        float32, (B, K).

    >>> two = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]])
    >>> pooled_logits((each, 1) for each in two).softmax(1)
    tensor([[0.2500, 0.7500]])
    """
    log_yes, log_no = torch.tensor(-torch.inf), torch.tensor(-torch.inf)
    total = 0
    for each, weight in logits:
        each, total = each.float(), total + weight
        yes = F.logsigmoid(each) if multi_label else each.log_softmax(1)
        log_yes = torch.logaddexp(log_yes.to(yes), yes + log(weight))
        if multi_label:
            log_no = torch.logaddexp(log_no.to(yes), F.logsigmoid(-each) + log(weight))
    return log_yes - log_no if multi_label else log_yes - log(total)
