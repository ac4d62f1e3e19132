"""Are the numbers that reach the first layer on a scale from which a network learns?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from .finding import Finding, Status

CHECK = "input scale"
TINY = 0.02  # deviation; the darkest photos, divided by 255, have 0.1, what is divided by it twice 0.0014

# Means and standard deviations by which images in [0, 1] are usually normalised.
USUAL = {
    "0.5": ((0.5,), (0.5,)),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CLIP": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "CIFAR10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "MNIST": ((0.1307,), (0.3081,)),
    "FashionMNIST": ((0.286,), (0.353,)),
}


def input_scale(
    batch: Tensor,
    first_layer: Tensor | None = None,
    *,
    pretrained: bool,
    expected_mean: Sequence[float] | None = None,
    expected_std: Sequence[float] | None = None,
) -> Finding:
    """Judge the finiteness, the variety and the scale of a batch of inputs.

    NaN, infinity and inputs that are alike for all samples are failures. Raw bytes and images that were
    normalised twice are warnings, tables of features may have any scale.

    Args:
        batch: Inputs as the loader gave them, (B, C, H, W) for images or (B, ...) for features.
        first_layer: The same samples as they reach the first layer with weights, (B, ...). The scale is
            judged on these; without them on `batch`, unless that holds integers, which the module scales.
        pretrained: Whether the weights come from elsewhere, and with them a scale of inputs.
        expected_mean: What the weights, or the datamodule, subtract from images in [0, 1], by channel.
        expected_std: What they divide by.

    >>> input_scale(torch.rand(8, 3, 4, 4) * 255, pretrained=False).causes
    ('raw-pixels',)
    >>> input_scale(torch.randn(8, 3, 4, 4), pretrained=False).status
    'PASS'
    """
    given = batch if first_layer is None else first_layer
    if batch.numel() == 0 or given.numel() == 0:
        return Finding(CHECK, "SKIP", "The batch is empty.")
    where = "in the batch" if first_layer is None else "at the first layer"
    broken = _broken_samples(given)
    if broken:
        return Finding(
            CHECK,
            "FAIL",
            f"{broken} of {len(given)} samples hold NaN or infinity {where}; all numbers must be finite.",
            {"samples": len(given), "non_finite_samples": broken},
            ("non-finite-input",),
        )
    for tensor, place in ((batch, "in the batch"), (given, where)):
        if len(tensor) >= 4 and not _broken_samples(tensor) and bool((tensor == tensor[:1]).all()):
            return Finding(
                CHECK,
                "FAIL",
                f"All {len(tensor)} samples are the same {place}; they must differ.",
                {"samples": len(tensor), "std": float(tensor.double().std())},
                ("constant-input", "input-ignored"),
            )
    if not given.is_floating_point():
        return Finding(CHECK, "SKIP", "The inputs are integers: the module scales or embeds them itself.")
    return _scale(given, batch.ndim == 4 or given.ndim == 4, pretrained, expected_mean, expected_std, where)


def _broken_samples(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return 0
    return (
        int((~tensor.isfinite()).flatten(1).any(1).sum())
        if tensor.ndim > 1
        else int((~tensor.isfinite()).sum())
    )


def _scale(
    given: Tensor,
    images: bool,
    pretrained: bool,
    expected_mean: Sequence[float] | None,
    expected_std: Sequence[float] | None,
    where: str,
) -> Finding:
    values = given.detach().double()
    channels = values.transpose(0, 1).flatten(1) if values.ndim == 4 else values.flatten()[None]  # (C, B·H·W)
    low, high = channels.amin(1), channels.amax(1)  # (C,)
    mean, std = channels.mean(1), channels.std(1)
    least, most = float(low.min()), float(high.max())
    spread, centre = float(values.std()), float(values.mean())
    evidence = {"min": least, "max": most, "mean": centre, "std": spread}
    measured = f"Range {least:.3g} to {most:.3g}, mean {centre:.3g}, standard deviation {spread:.3g} {where}"
    wanted = "expected about mean 0 and standard deviation 1"

    def finding(status: Status, message: str, *causes: str) -> Finding:
        return Finding(CHECK, status, message, evidence, causes)

    if not images:
        if most > 50 and spread > 20:
            message = f"{measured}; {wanted}, which tables of features may do without."
            return finding("INFO", message, "input-scale")
        return finding("PASS", f"{measured}.")
    # Raw digits, MNIST and Fashion-MNIST: standard deviation 78–98; the darkest photos about 25.
    if most > 50 and spread > 20:
        return finding("WARN", f"{measured}: pixels as raw bytes; {wanted}.", "raw-pixels")
    pairs = [*USUAL.values()]
    if expected_mean is not None and expected_std is not None:
        pairs.append((tuple(expected_mean), tuple(expected_std)))
    if _twice(low, high, mean, std, pairs):
        message = f"{measured}, as of images that were normalised twice; {wanted}."
        return finding("WARN", message, "double-normalization")
    fits = _within(low, high, expected_mean, expected_std)
    # Healthy: MNIST padded to 32 × 32 by ImageNet's numbers has mean -1.55, so 1.5 alone would alarm.
    if pretrained and not fits and (abs(centre) > 1.8 or not 0.2 <= spread <= 3):
        return finding("WARN", f"{measured}; the pretrained weights expect theirs, {wanted}.", "input-scale")
    if spread < TINY:
        return finding("WARN", f"{measured}; {wanted}.", "input-scale", "raw-pixels")
    if least >= 0 and most > 1.5:
        return finding("INFO", f"{measured}: pixels that are not normalised; {wanted}.", "raw-pixels")
    if pretrained and least >= 0:
        return finding("INFO", f"{measured}: pixels that are not centred; {wanted}.", "input-scale")
    return finding("PASS", f"{measured}.")


def _twice(
    low: Tensor,  # (C,)
    high: Tensor,  # (C,)
    mean: Tensor,  # (C,)
    std: Tensor,  # (C,)
    pairs: list[tuple[tuple[float, ...], tuple[float, ...]]],
) -> bool:
    """Return whether range and deviation are those of images in [0, 1] that were normalised twice."""
    # Once, by (m, s): range at most 1 / s, standard deviation s_data / s ≤ 0.5 / s. With ImageNet's numbers
    # the range is at most 4.5 and the deviation 1.0–1.7 (digits, MNIST, Fashion-MNIST); with a data set's
    # own numbers the deviation is 1 whatever the range. Twice: 1 / s² and s_data / s²: 7–20 and 2.6–6.7.
    # Measured: no alarm in 8400 batches, 16 to 128 images of five data sets, by USUAL or own numbers.
    wide = (high - low > 5.5) & (std > 2.0) & (low < -1.2)
    if bool(wide.double().mean() > 0.5):
        return True
    # Narrow doubles, as 0.5 and 0.5 twice (range -3 to 1), are known by both ends of their range.
    if bool((mean.abs() < 0.5).all()) and bool(((std > 0.6) & (std < 1.5)).all()):
        return False
    for (first_mean, first_std), (second_mean, second_std) in product(pairs, pairs):
        first = _fit(first_mean, low), _fit(first_std, low)
        second = _fit(second_mean, low), _fit(second_std, low)
        if any(numbers is None for numbers in (*first, *second)):
            continue
        scale = first[1] * second[1]  # type: ignore[operator]
        start = (-first[0] / first[1] - second[0]) / second[1]  # type: ignore[operator]
        end = ((1 - first[0]) / first[1] - second[0]) / second[1]  # type: ignore[operator]
        near = (low - start).abs().maximum((high - end).abs()) * scale  # in units of a pixel in [0, 1]
        if bool((near < 0.005).all()):
            return True
    return False


def _fit(numbers: tuple[float, ...], like: Tensor) -> Tensor | None:
    """Return numbers by channel, or None when there are not as many."""
    if len(numbers) not in (1, len(like)):
        return None
    return torch.tensor(numbers, dtype=like.dtype, device=like.device).expand(len(like))


def _within(low: Tensor, high: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> bool:
    """Return whether the range is one that images in [0, 1] have after the expected normalisation."""
    if mean is None or std is None:
        return False
    centre, scale = _fit(tuple(mean), low), _fit(tuple(std), low)
    if centre is None or scale is None:
        return False
    first, last = low * scale + centre, high * scale + centre  # back in [0, 1]
    return bool((first > -0.05).all() and (last < 1.05).all() and (last - first > 0.3).all())
