"""Units that are zero whatever comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

from .finding import Finding

CHECK = "dead units"
SAMPLES = 512
FAIL_FROM, WARN_FROM = 0.95, 0.5  # of a layer's units
DEVIATIONS = 4  # a layer of a few units may have more than half of them dead by chance


def dead_units(dead: Mapping[str, Sequence[float]], *, units: Mapping[str, int], samples: int) -> Finding:
    r"""Judge what fraction of the units of each ReLU layer was zero on all samples and positions.

    A unit that no sample moves has no gradient and cannot come back. FAIL where 95 % of a layer were dead in
    two observations, WARN from 50 % on (and 4 standard deviations of :math:`\sqrt{1/4n}` for a layer of n
    units: in a deep network at its initialization all samples come to point the same way, and up to half of
    the units are off for all of them).

    Args:
        dead: Layer to the fractions, the oldest observation first. Leave out what cannot die (GELU, SiLU),
            gates, and units whose inputs were exactly zero: nothing came, such as behind a normalisation
            whose scale begins at zero.
        units: Layer to its number of units.
        samples: Of how many samples the smallest observation is.

    Source: Lu et al., "Dying ReLU and Initialization: Theory and Numerical Examples", 2019.

    >>> dead_units({"act": [0.98, 0.97]}, units={"act": 64}, samples=512).status
    'FAIL'
    """
    if not any(dead.values()):
        return Finding(CHECK, "SKIP", "There is no layer whose units can die, or none was observed yet.")
    if samples < SAMPLES:
        said = f"Only {samples} samples were observed; {SAMPLES} are needed."
        return Finding(CHECK, "SKIP", said, {"samples": samples})
    last = {name: values[-1] for name, values in dead.items() if values}
    worst = max(last, key=lambda name: last[name])
    evidence = {"samples": samples, "layers": len(last), "dead": dict(last), "worst": worst}
    share = f"{last[worst]:.0%} of the {units[worst]} units of `{worst}`"
    failed = [name for name, values in dead.items() if len(values) > 1 and min(values[-2:]) >= FAIL_FROM]
    if failed:
        worst = max(failed, key=lambda name: last[name])
        return Finding(
            CHECK,
            "FAIL",
            f"{last[worst]:.0%} of the {units[worst]} units of `{worst}` were zero on all of {samples} "
            f"samples in two observations, as in {len(failed)} of {len(last)} layers; expected below "
            f"{WARN_FROM:.0%}.",
            evidence,
            _causes(last),
        )
    if any(last[name] >= _bound(units[name]) for name in last):
        worst = max(last, key=lambda name: last[name] - _bound(units[name]))
        return Finding(
            CHECK,
            "WARN",
            f"{last[worst]:.0%} of the {units[worst]} units of `{worst}` were zero on all of {samples} "
            f"samples; expected below {_bound(units[worst]):.0%}.",
            evidence,
            _causes(last),
        )
    return Finding(CHECK, "PASS", f"At most {share} were zero on all of {samples} samples.", evidence)


def _bound(units: int) -> float:
    return min(WARN_FROM + DEVIATIONS * sqrt(0.25 / units), 1.0)


def _causes(dead: Mapping[str, float]) -> tuple[str, ...]:
    """Dead everywhere from the first layer on: the step was too long. Else a bias, or the input."""
    first = next(iter(dead.values()))
    causes = ("dead-relu", "learning-rate-too-high", "initialization-too-large")
    return (*causes, "input-scale") if first >= WARN_FROM else causes
