"""Whether gradients are finite, reach the first layers, and survive their clipping."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import median

from .finding import Finding

CHECK_FINITE, CHECK_VANISHING, CHECK_CLIPPING = "finite gradients", "vanishing gradients", "clipping"
VANISHED = 1e-5  # ‖g‖ / ‖W‖ of the first third of the layers over that of the last
STILL = 1e-6  # ‖Δw‖ / ‖w‖ of the first third
LASTING = 20  # steps
AT_LEAST = 3  # measurements within them
CLIPPED = 0.01
CLIPPED_STEPS = 100


def check_finite_gradients(
    count: int,
    *,
    first_step: int | None = None,
    layers: Sequence[str] = (),
    n_layers: int = 0,
    last: str = "",
) -> Finding:
    """Name the layer in which gradients ceased to be finite.

    Backward passes run from the last layer to the first, so that what one layer makes reaches all before it
    and none behind it: it arose in the first one in backward order. Where that is the last layer of the
    module, it came from the loss, or from the forward pass.

    Args:
        count: Steps taken with a gradient that was not finite.
        first_step: The first of them, from 1 on.
        layers: Those whose gradient was not finite then, in backward order.
        n_layers: How many layers have gradients.
        last: The layer that is first in backward order.

    >>> finding = check_finite_gradients(3, first_step=7, layers=["b", "a"], n_layers=3, last="c")
    >>> finding.status, finding.evidence["layer"]
    ('FAIL', 'b')
    """
    if not count:
        return Finding(CHECK_FINITE, "PASS", "The gradients of all steps were finite.", {"steps": 0})
    layer = layers[0] if layers else ""
    from_loss = bool(layer) and layer == last
    evidence = {"steps": count, "first_step": first_step, "layer": layer, "layers": list(layers)}
    said = f"Gradients were not finite in {count} {'step' if count == 1 else 'steps'}, first at step "
    said += f"{first_step} in {len(layers)} of {n_layers} layers: "
    if from_loss:
        said += f"already in {layer}, the last layer, so from the loss or the forward pass."
        early = first_step is not None and first_step <= 1
        input_or_rate = ("non-finite-input", "learning-rate-too-high")
        causes = input_or_rate if early else input_or_rate[::-1]
        return Finding(CHECK_FINITE, "FAIL", said, evidence, (*causes, "mixed-precision-overflow"))
    said += f"they arose in {layer}, behind which they were finite."
    return Finding(CHECK_FINITE, "FAIL", said, evidence, ("exploding-gradients", "mixed-precision-overflow"))


def check_vanishing(steps: Sequence[int], ratios: Sequence[float], updates: Sequence[float]) -> Finding:
    r"""Say whether gradients fade on their way to the first layers, so that these stay as they are.

    Over 20 steps and at least three measurements in a row both
    :math:`\|g\|/\|W\|` of the first third of the layers below 1e-5 of that of the last third, and
    :math:`\|\Delta w\|/\|w\|` of the first third below 1e-6: a WARN. Small gradients alone, which Adam makes
    up for, are worth an INFO.

    Args:
        steps: The measured steps, rising. (T,)
        ratios: First third over last third; NaN where it is not known. (T,)
        updates: Median update ratio of the first third. (T,)

    >>> check_vanishing([10, 20, 30], [1e-9] * 3, [1e-9] * 3).causes
    ('vanishing-gradients', 'saturating-activation', 'initialization-too-small')
    >>> check_vanishing([10, 20, 30], [0.5] * 3, [1e-3] * 3).status
    'PASS'
    """
    known = [line for line in zip(steps, ratios, updates, strict=True) if line[1] == line[1]]
    if not known:
        return Finding(CHECK_VANISHING, "SKIP", "Fewer than three layers had gradients to compare.")
    typical = median(ratio for _, ratio, _ in known)
    evidence = {"depth_ratio": typical, "update_of_first_third": median(update for *_, update in known)}
    said = (
        f"Relative to the weights, gradients of the first third of the layers are {typical:.1e} times those "
    )
    said += "of the last third"
    small = _longest([step for step, *_ in known], [ratio < VANISHED for _, ratio, _ in known])
    both = _longest(
        [step for step, *_ in known], [ratio < VANISHED and update < STILL for _, ratio, update in known]
    )
    causes = ("vanishing-gradients", "saturating-activation", "initialization-too-small")
    if both is not None:
        said += f", and from step {both[0]} to {both[1]} its weights moved by less than {STILL:.0e} a step."
        return Finding(CHECK_VANISHING, "WARN", said, {**evidence, "from": both[0], "to": both[1]}, causes)
    if small is not None:
        said += f", from step {small[0]} to {small[1]}; its weights do move."
        return Finding(CHECK_VANISHING, "INFO", said, evidence, causes[:1])
    return Finding(CHECK_VANISHING, "PASS", f"{said}.", evidence)


def _longest(steps: Sequence[int], holds: Sequence[bool]) -> tuple[int, int] | None:
    """Return the first and the last step of the longest run that is long enough to count."""
    best: tuple[int, int] | None = None
    run: list[int] = []
    for step, held in zip(steps, holds, strict=True):
        run = [*run, step] if held else []
        enough = len(run) >= AT_LEAST and run[-1] - run[0] >= LASTING
        if enough and (best is None or run[-1] - run[0] > best[1] - best[0]):
            best = run[0], run[-1]
    return best


def check_clipping(
    steps: Sequence[int],
    coefficients: Sequence[float],
    rates: Sequence[float],
    *,
    limit: float = CLIPPED,
    fewest: int = CLIPPED_STEPS,
) -> Finding:
    """Say whether clipping leaves so little of the gradients that it sets the learning rate.

    Looks at the steps from the highest learning rate on.

    Args:
        steps: The measured steps, rising. (T,)
        coefficients: Norm of all gradients after clipping over that before; NaN where it is not known. (T,)
        rates: Learning rates at those steps; NaN where it is not known. (T,)
        limit: Least median of the coefficients that is left alone.
        fewest: Steps that are needed for a WARN.

    >>> check_clipping([10, 60, 110], [1e-3] * 3, [0.1] * 3).causes
    ('gradient-clipping-too-strong',)
    """
    known = [line for line in zip(steps, coefficients, rates, strict=True) if isfinite(line[1])]
    if not known:
        return Finding(CHECK_CLIPPING, "SKIP", "The norm before clipping is not known.")
    highest = max((rate for *_, rate in known if isfinite(rate)), default=0.0)
    start = next((number for number, line in enumerate(known) if line[2] >= highest), 0)
    warmed = known[start:]
    typical = median(coefficient for _, coefficient, _ in warmed)
    clipped = sum(coefficient < 1 - 1e-4 for _, coefficient, _ in warmed) / len(warmed)
    evidence = {"coefficient": typical, "clipped": clipped, "steps": len(warmed)}
    if not clipped:
        return Finding(CHECK_CLIPPING, "PASS", "No gradient was clipped.", evidence)
    said = f"Clipping leaves {typical:.1e} of the gradients' norm (median)"
    said += f"; it acts on {clipped:.0%} of the steps"
    if typical >= limit:
        return Finding(CHECK_CLIPPING, "PASS", f"{said}.", evidence)
    if warmed[-1][0] - warmed[0][0] < fewest:
        return Finding(CHECK_CLIPPING, "INFO", f"{said}, of too few to judge.", evidence)
    said += ": it, and not the loss, sets how far a step goes."
    return Finding(CHECK_CLIPPING, "WARN", said, evidence, ("gradient-clipping-too-strong",))
