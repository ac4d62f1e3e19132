"""Residual branches that begin at zero."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from ..utils.errors import UserError
from ..utils.modes import evaluating
from ..utils.rng import preserved_generators
from .trace import ADDITIONS, PRODUCTS, SUMS, Step, Trace, example_shapes

_SAME = frozenset({"dropout", "contiguous", "clone", "to", "reshape", "view", "flatten", "permute"})
_JOINS = frozenset({"cat", "concat", "concatenate", "stack"})
_CUTS = frozenset({"chunk", "split", "unbind", "tensor_split", "unsafe_chunk"})


@torch.no_grad()
def zero_residual(module: nn.Module, images: Tensor | None = None) -> list[str]:
    r"""Set the last layer of each residual branch to zero, so that every block begins as its shortcut.

    .. math:: y = s(x) + F(x), \qquad F(x) = 0

    The blocks are found by what they compute, not by their classes: one image goes through the network in
    evaluation mode, and each addition of two equally shaped tensors is looked at. It is residual where one
    of them went into the making of the other, or where the one was made from what both have in common by at
    most one convolution and the other by two or more. Of the branch, the last weights that multiply are set
    to 0: the scale of a norm, a layer scale, or else a linear layer or convolution; and the bias with them.
    Dropout, pooling, attention over channels and the like may follow. A branch that is 0 already is left
    alone, whatever makes it so: two zeros in a row would learn nothing. Then the image goes through once
    more: weights whose branch is not exactly zero now are put back, with a warning.

    timm's ResNets begin so; torchvision's, and most transformers, do not.

    Args:
        module: The network, changed in place; modes, buffers and random numbers stay.
        images: Input of the network, such as (1, C, H, W). By default random numbers of a size that it takes.

    Returns:
        The names of the parameters that are zero now, in the order of the forward pass.

    Raises:
        UserError: No residual branch is found, or `images` is needed.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.1.

    >>> from torchvision.models import resnet18
    >>> zero_residual(resnet18())[:2]
    ['layer1.0.bn2.weight', 'layer1.0.bn2.bias']
    """
    with evaluating(module), preserved_generators():
        images, steps = _traced(module, images)
        branches = _branches(steps)
        parameters = dict(module.named_parameters())
        moving = [branch for branch in branches if not steps[branch.number].zeros[branch.operand]]
        own = {name: parameters[name].clone() for branch in moving for name in branch.weights}
        for name in own:
            parameters[name].zero_()
        again = _trace(module, images) if moving else steps
    wrong = [branch for branch in branches if not again[branch.number].zeros[branch.operand]]
    for name in {name for branch in wrong for name in branch.weights}:
        parameters[name].copy_(own[name])
    if wrong:
        names = ", ".join(branch.weights[0] for branch in wrong[:3])
        warnings.warn(
            f"{len(wrong)} of {len(branches)} residual branches are not zero when their last layer is, and "
            f"stay as they were: {names}{', …' if len(wrong) > 3 else ''}.",
            stacklevel=2,
        )
    last = dict.fromkeys(name for branch in branches if branch not in wrong for name in branch.weights)
    if not last:
        raise UserError(
            f"{type(module).__name__} has no residual branch that a layer ends: no addition of a tensor and "
            "of what was made out of it. Give a network with shortcuts."
        )
    return [name for name in last if not parameters[name].any()]


@dataclass
class _Branch:
    number: int  # of the addition among the steps
    operand: int  # of the addition
    weights: tuple[str, ...]


def _branches(steps: list[Step]) -> list[_Branch]:
    shortcuts: dict[Step, Step] = {}  # of each residual addition
    found = []
    for number, step in enumerate(steps):
        if step.function not in ADDITIONS or len(step.parents) != 2 or not step.like:
            continue
        operand = _branch_of(step, steps, shortcuts)
        if operand is None:
            continue
        shortcuts[step] = step.parents[1 - operand]
        if weights := _last_weights(step.parents[operand], step.parents[1 - operand], shortcuts):
            found.append(_Branch(number, operand, weights))
    return found


def _branch_of(step: Step, steps: list[Step], shortcuts: dict[Step, Step]) -> int | None:
    """Return which operand of an addition is the residual branch; None where it is no residual addition."""
    by_identity = [_carries(step.parents[1 - i], step.parents[i], shortcuts) for i in (0, 1)]
    if by_identity[0] != by_identity[1]:
        return by_identity.index(True)
    if any(by_identity):
        return None
    common = step.parents[0].cone & step.parents[1].cone
    only = [[s for i, s in enumerate(steps) if (p.cone & ~common) >> i & 1] for p in step.parents]
    layers = [sum(s.function in SUMS for s in part) for part in only]
    for i in (0, 1):
        plain = all(len(s.parents) == 1 and s.function not in _CUTS for s in only[1 - i])
        if plain and layers[1 - i] <= 1 < layers[i]:
            return i
    return None


def _carries(shortcut: Step, branch: Step, shortcuts: dict[Step, Step]) -> bool:
    """Return whether the branch was made out of what the shortcut hands on as it is."""
    while not branch.depends_on(shortcut):
        if shortcut in shortcuts:
            shortcut = shortcuts[shortcut]
        elif shortcut.function in _SAME:
            shortcut = shortcut.parents[0]
        else:
            return False
    return branch is not shortcut


def _last_weights(step: Step, shortcut: Step, shortcuts: dict[Step, Step]) -> tuple[str, ...]:
    """Return the parameters that make a branch zero where they are; none where it has no such."""
    while not shortcut.depends_on(step):
        if step.weights:
            return step.weights
        if step in shortcuts:
            return ()
        if len(step.parents) == 1:
            step = step.parents[0]
        elif step.function in ADDITIONS | _JOINS:  # zero where all of them are
            parts = [_last_weights(parent, shortcut, shortcuts) for parent in step.parents]
            return tuple(dict.fromkeys(sum(parts, ()))) if all(parts) else ()
        elif step.function in PRODUCTS:  # of a gate and what it was made of, the latter
            first, second = step.parents[:2]
            step = second if first.depends_on(second) else first
        else:
            step = step.parents[-1]
    return ()


def _traced(module: nn.Module, images: Tensor | None) -> tuple[Tensor, list[Step]]:
    """Return images that the network takes, and the steps that they went through."""
    if images is not None:
        return images, _trace(module, images)
    first = next(module.parameters(), torch.empty(0))
    refused: Exception | None = None
    for shape in example_shapes(module):
        images = torch.randn(shape, generator=Generator().manual_seed(0)).to(first)
        try:
            return images, _trace(module, images)
        except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
            refused = error  # too small, or not what it is built for
    raise UserError(
        f"It is not known which input {type(module).__name__} takes. Give a batch of one by `images`."
    ) from refused


def _trace(module: nn.Module, images: Tensor) -> list[Step]:
    with Trace(module, images) as trace:
        module(images)
    return trace.steps
