"""What a check says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from .causes import CAUSES

Status = Literal["FAIL", "WARN", "INFO", "PASS", "SKIP"]
WORST_FIRST: tuple[Status, ...] = ("FAIL", "WARN", "INFO", "SKIP", "PASS")


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: Name of the check.
        status: FAIL for exact or calibrated tests only, WARN and INFO for magnitudes, SKIP when it could not
            run.
        message: What was measured, and what was expected: a sentence, with a full stop.
        evidence: The numbers, as plain data.
        causes: Slugs of `CAUSES`, likeliest first.
        advice: What to change; by default what `CAUSES` says of the likeliest.

    Raises:
        ValueError: A cause is not in the vocabulary, or the status not one of the five.

    >>> finding = Finding("input scale", "WARN", "Mean 33, expected 0.", causes=("raw-pixels",))
    >>> finding.advice
    "Scale the pixels: `normalize='channel_mean_std'`, or divide by 255 and standardise."
    """

    check: str
    status: Status
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    causes: Sequence[str] = ()
    advice: str = ""

    def __post_init__(self) -> None:
        if self.status not in WORST_FIRST:
            raise ValueError(f"`status` must be one of {', '.join(WORST_FIRST)}, got {self.status!r}.")
        unknown = [slug for slug in self.causes if slug not in CAUSES]
        if unknown:
            raise ValueError(f"`causes` must be slugs of `CAUSES`, got {unknown}. Add it there.")
        object.__setattr__(self, "causes", tuple(self.causes))
        if not self.advice and self.causes:
            object.__setattr__(self, "advice", CAUSES[self.causes[0]])

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain data, in the order in which one reads it."""
        return {
            "check": self.check,
            "status": self.status,
            "message": self.message,
            "evidence": {name: _plain(value) for name, value in self.evidence.items()},
            "causes": list(self.causes),
            "advice": self.advice,
        }


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever evidence holds
    """Return what JSON knows: numbers that are not finite become words."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if isfinite(number) else str(number)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings sorted by status; equals keep their order.

    >>> [finding.status for finding in worst_first([Finding("a", "PASS", ""), Finding("b", "FAIL", "")])]
    ['FAIL', 'PASS']
    """
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.status))
