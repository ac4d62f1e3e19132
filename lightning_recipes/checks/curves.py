"""What do the curves of a run say? Six shapes, as the lecture names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .finding import Finding, Status, worst_first

CHECK = "curves"
FEWEST = 10  # points below which noise and shape cannot be told apart


class _Line(NamedTuple):
    """A straight line through successive points."""

    change: float  # from the first to the last point
    t: float  # slope over its standard error


def curves(rows: Sequence[Mapping[str, float]]) -> list[Finding]:
    """Look for the six shapes: bad start, plateau, early decay, unfinished, overfitting, underfitting.

    All are magnitudes, and never failures.

    Args:
        rows: What was logged at each point, as `LearningCurves.rows`: `train/loss`, `val/loss`, `train/acc`,
            `val/acc` and `lr`, any of which may be missing in any row.

    >>> rows = [{"train/acc": 0.99 - 0.5**n, "val/acc": 0.6 - 0.5**n} for n in range(1, 30)]
    >>> [finding.causes for finding in curves(rows)]
    [('overfitting',)]
    """
    loss, rates = _series(rows, "train/loss"), _rates(rows, "train/loss")
    if len(loss) < FEWEST:
        loss, rates = _series(rows, "val/loss"), _rates(rows, "val/loss")
    accuracies = _series(rows, "train/acc"), _series(rows, "val/acc")
    if max(len(loss), *map(len, accuracies)) < FEWEST:
        message = f"The curves have fewer than {FEWEST} points: too few to tell a shape from noise."
        return [Finding(CHECK, "SKIP", message)]
    longer = _unfinished(rows)
    perfect = len(accuracies[0]) > 0 and float(_tail(accuracies[0])) > 0.98
    found = [
        _late_start(loss, rates),
        _plateau(loss, rates) if not perfect else None,
        _early_decay(loss, rates) if not perfect else None,
        longer,
        _overfitting(rows),
        _underfitting(*accuracies) if longer is None else None,
    ]
    findings = [finding for finding in found if finding is not None]
    return worst_first(findings) or [Finding(CHECK, "PASS", "The curves show none of the six shapes.")]


def _series(rows: Sequence[Mapping[str, float]], name: str) -> Tensor:
    values = torch.tensor([float(row[name]) for row in rows if name in row], dtype=torch.double)
    return values[values.isfinite()]


def _rates(rows: Sequence[Mapping[str, float]], beside: str) -> Tensor:
    """Return the last learning rate known at each point of another series; empty when never logged."""
    rates, last = [], float("nan")
    for row in rows:
        last = float(row.get("lr", last))
        value = float(row.get(beside, float("nan")))
        if value - value == 0:  # finite
            rates.append(last)
    values = torch.tensor(rates, dtype=torch.double)
    known = values[values.isfinite()]
    if not len(known):
        return known
    return torch.where(values.isfinite(), values, known[0])


def _noise(values: Tensor) -> float:
    """Return the standard deviation of the noise, from second differences, which a smooth curve lacks."""
    return float(values.diff(n=2).abs().median()) * 1.4826 / 6**0.5


def _line(values: Tensor) -> _Line:
    points = torch.arange(len(values), dtype=torch.double)
    points = points - points.mean()
    slope = float((points * values).sum() / points.square().sum())
    rest = values - values.mean() - slope * points
    error = float((rest.square().sum() / (len(values) - 2) / points.square().sum()).sqrt())
    return _Line(slope * (len(values) - 1), slope / max(error, 1e-12))


def _tail(values: Tensor) -> Tensor:
    return values[-max(3, len(values) // 5) :].median()


def _late_start(loss: Tensor, rates: Tensor) -> Finding | None:
    """Flat and then a drop."""
    if len(loss) < FEWEST:
        return None
    start = float(loss[:3].median())
    fall, noise = start - float(loss.min()), _noise(loss)
    if fall < 20 * noise or fall < 0.05 * abs(start):
        return None
    left = ((loss - start).abs() > max(0.03 * fall, 3 * noise)).nonzero()
    flat = int(left[0]) if len(left) else len(loss)
    if flat < max(5, 0.15 * len(loss)) or flat >= len(loss) - 2:
        return None
    after = start - float(loss[min(2 * flat, len(loss) - 1)])
    if after < 0.3 * fall:
        return None
    if len(rates) and float(rates[:flat].mean()) < 0.5 * float(rates.max()):
        return None  # a warm-up explains it
    return Finding(
        CHECK,
        "INFO",
        f"The loss stays at {start:.3g} for {flat} of {len(loss)} points, and then drops by {after:.3g}: "
        "a bad start.",
        {"start": start, "flat_points": flat, "points": len(loss), "drop": after},
        ("initialization-too-small", "learning-rate-too-low"),
    )


def _plateau(loss: Tensor, rates: Tensor) -> Finding | None:
    """A plateau at a constant learning rate."""
    size = max(6, int(0.4 * len(loss)))
    if len(loss) < 15 or not len(rates):
        return None
    late = rates[-int(0.6 * len(loss)) :]
    start, end = float(loss[:3].median()), float(_tail(loss))
    fall = start - end
    if (
        float(late.min()) <= 0
        or float(late.max() / late.min()) > 1.5
        or float(late[-1]) < 0.5 * float(rates.max())
    ):
        return None  # the rate falls, or has fallen
    if fall < 10 * _noise(loss) or fall < 0.05 * abs(start) or end < 0.1 * start:
        return None  # it has not learned, or has nothing left to learn
    line = _line(loss[-size:])
    if abs(line.change) > 0.03 * fall:
        return None
    return Finding(
        CHECK,
        "INFO",
        f"The loss changed by {line.change:.2g} in the last {size} of {len(loss)} points, at a constant "
        f"learning rate: a plateau at {end:.3g}.",
        {"change": line.change, "window": size, "points": len(loss), "level": end, "lr": float(late[-1])},
        ("schedule-missing",),
    )


def _early_decay(loss: Tensor, rates: Tensor) -> Finding | None:
    """Still falling when the rate dropped, and flat after."""
    if len(loss) < 12 or not len(rates):
        return None
    drops = (rates[1:] <= 0.34 * rates[:-1]).nonzero().flatten() + 1
    ends = [*map(int, drops[1:]), len(loss)]
    for drop, end in zip(map(int, drops), ends, strict=False):
        before, after = loss[drop - max(4, drop // 4) : drop], loss[drop + 2 : end]
        if drop < max(4, 0.1 * len(loss)) or drop > 0.7 * len(loss) or len(after) < 5:
            continue
        start = float(loss[:2].max())
        so_far = start - float(before[-1])
        falling, flat = _line(before), _line(after)
        speed = falling.change / (len(before) - 1)
        speed_after = flat.change / (len(after) - 1)
        # At 4 e-foldings the last quarter makes 5 % of the fall, at one e-folding 16 %.
        if falling.t > -4 or -falling.change < 0.1 * so_far or -falling.change < 5 * _noise(loss):
            continue
        if speed_after < 0.1 * speed or float(after.median()) < 0.2 * start:
            continue
        return Finding(
            CHECK,
            "INFO",
            f"The loss fell by {-speed:.2g} a point when the learning rate dropped at point {drop} of "
            f"{len(loss)}, and by {-speed_after:.2g} after: the drop came early.",
            {"drop": drop, "points": len(loss), "before": speed, "after": speed_after},
            ("schedule-too-early",),
        )
    return None


def _unfinished(rows: Sequence[Mapping[str, float]]) -> Finding | None:
    """Accuracy still rising at the end."""
    for name, sign in (("val/acc", 1.0), ("val/loss", -1.0), ("train/acc", 1.0), ("train/loss", -1.0)):
        values = sign * _series(rows, name)
        if len(values) < FEWEST:
            continue
        size = max(6, len(values) // 4)
        window = values[-size:]
        line, last = _line(window), _line(window[size // 2 :])
        least = 0.01 if name.endswith("acc") else 0.03 * float(window.abs().median())
        if line.t < 5 or line.change < least or last.change < 0.25 * line.change:
            return None
        verb = "rises" if sign > 0 else "falls"
        change = abs(line.change)
        message = f"`{name}` still {verb}, by {change:.2g} in the last {size} of {len(values)} points."
        evidence = {"metric": name, "change": line.change, "window": size, "points": len(values)}
        return Finding(CHECK, "INFO", message, evidence, ("train-longer",))
    return None


def _overfitting(rows: Sequence[Mapping[str, float]]) -> Finding | None:
    """A huge gap between training and validation."""
    train, val = _series(rows, "train/acc"), _series(rows, "val/acc")
    train_loss, val_loss = _series(rows, "train/loss"), _series(rows, "val/loss")
    evidence: dict[str, float] = {}
    messages: list[str] = []
    status: Status = "INFO"
    if min(len(train), len(val)) >= FEWEST:
        gap = float(_tail(train) - _tail(val))
        if gap > 0.1 and gap > 4 * max(_noise(train), _noise(val)):
            evidence["gap"] = gap
            messages.append(
                f"training accuracy {float(_tail(train)):.1%}, validation {float(_tail(val)):.1%}"
            )
            status = "WARN" if gap > 0.25 else status
    if min(len(train_loss), len(val_loss)) >= FEWEST:
        best = val_loss.unfold(0, 3, 1).median(1).values.min()
        rise, noise = float(_tail(val_loss) - best), _noise(val_loss)
        falls = float(_tail(train_loss)) < float(train_loss[: len(train_loss) // 2].median())
        if falls and rise > 0.2 * abs(float(best)) and rise > 6 * noise:
            evidence["val_loss_rise"] = rise
            messages.append(f"the validation loss is {rise:.2g} above its least, {float(best):.3g}")
    if not messages:
        return None
    text = ", and ".join(messages)
    return Finding(CHECK, status, f"{text[0].upper()}{text[1:]}.", evidence, ("overfitting",))


def _underfitting(train: Tensor, val: Tensor) -> Finding | None:
    """No gap, and a low accuracy."""
    if min(len(train), len(val)) < FEWEST:
        return None
    ends = float(_tail(train)), float(_tail(val))
    if max(ends) > 0.8 or abs(ends[0] - ends[1]) > 0.03:
        return None
    message = f"Training and validation accuracy end alike and low, at {ends[0]:.1%} and {ends[1]:.1%}."
    return Finding(CHECK, "INFO", message, {"train": ends[0], "val": ends[1]}, ("underfitting",))
