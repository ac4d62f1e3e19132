"""Does the output depend on the input at all?"""

from __future__ import annotations

from torch import Tensor

from .finding import Finding


def input_reach(outputs: Tensor, exchanged: Tensor) -> Finding:
    """Compare the outputs for some inputs with those for the same inputs in another order.

    Args:
        outputs: (N, ...), after a few steps, in eval mode.
        exchanged: The same, with each sample's input exchanged for another sample's.

    >>> import torch
    >>> input_reach(torch.ones(4, 2), torch.ones(4, 2)).causes
    ('input-ignored', 'constant-input')
    """
    check = "reach of inputs"
    change = float((outputs.double() - exchanged.double()).abs().max())
    size = float(outputs.double().abs().max())
    evidence = {"change": change, "size": size}
    if change == 0.0:
        said = "the output is the same for every input"
        return Finding(check, "FAIL", said, evidence, ("input-ignored", "constant-input"))
    return Finding(check, "PASS", f"another input changes the output by {change:.2g} of {size:.2g}", evidence)
