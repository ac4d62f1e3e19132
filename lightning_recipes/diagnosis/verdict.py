"""From what each check found to what is likely wrong: symptoms give way to what explains them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..checks import Finding
from ..checks.finding import WORST_FIRST

SYMPTOMS = (
    "initial loss",
    "vanishing gradients",
    "batch norm",
    "learning rate",
    "finite gradients",
    "update ratio",
    "first steps",
    "label dependence",
    "input dependence",
    "overfit",
)
"""Checks that see a consequence and cannot tell by themselves what it comes from, the most specific first."""
ALARMS = ("FAIL", "WARN")


def weighed(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings worst first, those that explain before those that are explained.

    A symptom's own causes stand behind the first cause of every other alarm, for a run seldom has two faults
    at once.

    Args:
        findings: Of all checks, in any order.

    >>> specific = Finding("logits", "FAIL", "", causes=("softmax-before-cross-entropy",))
    >>> symptom = Finding("overfit", "FAIL", "", causes=("learning-rate-too-low",))
    >>> [finding.check for finding in weighed([symptom, specific])]
    ['logits', 'overfit']
    >>> weighed([symptom, specific])[1].causes
    ('softmax-before-cross-entropy', 'learning-rate-too-low')
    """
    found = list(findings)
    told_twice = {id(f) for n, f in enumerate(found) if f.status == "PASS" and _again(f, found[n + 1 :])}
    found = [finding for finding in found if id(finding) not in told_twice]
    known = explanations(found)
    told = [
        explained(f, known) if f.check in SYMPTOMS and f.status in (*ALARMS, "INFO") and known else f
        for f in found
    ]
    return sorted(told, key=_order)


def explanations(findings: Sequence[Finding]) -> list[str]:
    """Return the first cause of each alarm that is no mere symptom, worst first.

    Args:
        findings: Of all checks, in any order.
    """
    specific = [f for f in findings if f.status in ALARMS and f.causes and f.check not in SYMPTOMS]
    return list(dict.fromkeys(f.causes[0] for f in sorted(specific, key=_order)))


def explained(finding: Finding, known: Sequence[str]) -> Finding:
    """Return the finding with the known causes before its own, and its advice for the first.

    Args:
        finding: Of a symptom.
        known: Slugs of `CAUSES`, likeliest first.
    """
    causes = tuple(dict.fromkeys([*known, *finding.causes]))
    return finding if causes == finding.causes else replace(finding, causes=causes, advice="")


def _order(finding: Finding) -> tuple[int, int]:
    symptom = SYMPTOMS.index(finding.check) + 1 if finding.check in SYMPTOMS else 0
    return WORST_FIRST.index(finding.status), symptom


def _again(finding: Finding, later: Sequence[Finding]) -> bool:
    return any(other.check == finding.check for other in later)
