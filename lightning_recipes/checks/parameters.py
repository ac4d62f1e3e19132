"""Are the right parameters trained?"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .finding import Finding, worst_first

CHECK = "parameters"


def coverage(
    trainable: Mapping[str, int],
    optimized: Collection[str],
    *,
    stale: int = 0,
    without_gradient: Collection[str] = (),
    frozen: Mapping[str, int] | None = None,
    frozen_untrained: bool | None = None,
) -> list[Finding]:
    """Compare what is trainable with what the optimizers hold and what gets a gradient.

    Args:
        trainable: Sizes of the parameters with `requires_grad`, by name, in the module's order.
        optimized: Names of the module's parameters that an optimizer holds.
        stale: Number of parameters of the optimizers that are not, or no longer, the module's.
        without_gradient: Names of parameters that got no gradient, or zeros, in each of several attempts.
        frozen: Sizes of the parameters without `requires_grad`.
        frozen_untrained: Whether the frozen ones look freshly initialised; None when that cannot be told.

    >>> [finding.causes for finding in coverage({"body": 90, "head": 10}, ["head"])]
    [('optimizer-misses-parameters',)]
    >>> [finding.status for finding in coverage({"body": 90, "head": 10}, ["body", "head"])]
    ['PASS']
    """
    frozen = frozen or {}
    if not trainable:
        message = "No parameter has `requires_grad`: nothing can be learned."
        return [Finding(CHECK, "FAIL", message, {"frozen": sum(frozen.values())}, ("frozen-backbone",))]
    total = sum(trainable.values()) + sum(frozen.values())
    findings = [
        *_missing(trainable, set(optimized), stale),
        *_gradients(trainable, set(optimized), set(without_gradient)),
        *_frozen(frozen, total, frozen_untrained),
    ]
    message = f"The optimizers hold all {len(trainable)} trainable parameters."
    return worst_first(findings) or [Finding(CHECK, "PASS", message, {"trainable": len(trainable)})]


def _missing(trainable: Mapping[str, int], optimized: set[str], stale: int) -> list[Finding]:
    missing = {name: size for name, size in trainable.items() if name not in optimized}
    evidence = {"missing": len(missing), "missing_names": list(missing)[:10], "stale": stale}
    if missing and stale:
        message = (
            f"The optimizers hold {stale} parameters that the module no longer has, and miss {len(missing)} "
            f"of its own ({_some(missing)}): they were replaced after the optimizer was built."
        )
        return [Finding(CHECK, "FAIL", message, evidence, ("head-replaced-after-optimizer",))]
    if missing:
        share = sum(missing.values()) / max(sum(trainable.values()), 1)
        message = (
            f"{len(missing)} of {len(trainable)} trainable parameters, {share:.0%} of the weights, are in no "
            f"optimizer ({_some(missing)})."
        )
        return [Finding(CHECK, "WARN", message, evidence, ("optimizer-misses-parameters",))]
    if stale:
        message = f"The optimizers hold {stale} parameters that are not the module's."
        return [Finding(CHECK, "INFO", message, evidence, ("head-replaced-after-optimizer",))]
    return []


def _gradients(trainable: Mapping[str, int], optimized: set[str], silent: set[str]) -> list[Finding]:
    silent = {name for name in trainable if name in optimized and name in silent}
    if not silent:
        return []
    held = [name for name in trainable if name in optimized]
    share = sum(trainable[name] for name in silent) / max(sum(trainable[name] for name in held), 1)
    evidence = {"without_gradient": len(silent), "share": share, "names": sorted(silent)[:10]}
    names = [name for name in held if name in silent]
    measured = f"{len(silent)} of {len(held)} parameters, {share:.0%} of the weights"
    message = f"{measured}, get no gradient ({_some(names)})."
    # A mask token or an auxiliary head is silent in healthy models, and small; the first layer never is.
    weights = [name for name in held if name.endswith("weight")]
    stem = bool(weights) and weights[0] in silent
    if len(silent) == len(held):
        return [Finding(CHECK, "FAIL", message, evidence, ("loss-detached", "detached-backbone"))]
    if share > 0.5:
        return [Finding(CHECK, "FAIL", message, evidence, ("detached-backbone",))]
    if share >= 0.05 or stem:
        return [Finding(CHECK, "WARN", message, evidence, ("detached-backbone",))]
    return [Finding(CHECK, "INFO", message, evidence, ("detached-backbone",))]


def _frozen(frozen: Mapping[str, int], total: int, untrained: bool | None) -> list[Finding]:
    share = sum(frozen.values()) / max(total, 1)
    if share <= 0.5 or not untrained:
        return []
    message = (
        f"{share:.0%} of the weights are frozen, and look as freshly initialised; expected trained ones."
    )
    return [Finding(CHECK, "WARN", message, {"frozen_share": share}, ("frozen-backbone",))]


def _some(names: Collection[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in list(names)[:3])
    return shown + (", …" if len(names) > 3 else "")
