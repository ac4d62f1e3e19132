"""A learning rate for each depth of a network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from ..utils.errors import UserError
from .depth import Depths


class Share(NamedTuple):
    """Where a parameter lies, and its part of the learning rate."""

    label: str
    scale: float


class Cut(NamedTuple):
    """A parameter group of an optimizer, and its part of the learning rate."""

    group: dict[str, Any]
    scale: float


def rate_shares(
    backbone: nn.Module, depths: Depths, *, backbone_scale: float = 1.0, layer_decay: float = 1.0
) -> dict[Tensor, Share]:
    r"""Return each backbone parameter's part of the learning rate: :math:`s \cdot d^{L - 1 - l}` in layer l.

    The last of the L layers learns at `backbone_scale` s, each other at `layer_decay` d times the one above.

    Args:
        backbone: Whose parameters `depths` names.
        depths: Their layers.
        backbone_scale: s, relative to the head.
        layer_decay: d, in (0, 1].

    Returns:
        Parameter to label (`backbone.LAYER`) and scale.

    Source: Clark et al., "ELECTRA", 2020; Bao et al., "BEiT", 2022 (which count the head as one more layer).

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> layers = {"0.weight": 0, "1.weight": 1}
    >>> shares = rate_shares(net, Depths(layers, layers, ["0", "1"]), backbone_scale=0.5, layer_decay=0.5)
    >>> [tuple(share) for share in shares.values()]
    [('backbone.0', 0.25), ('backbone.1', 0.5)]
    """
    last = depths.n_layers - 1
    return {
        parameter: Share(
            f"backbone.{depths.layers[name]}" if layer_decay != 1 else "backbone",
            backbone_scale * layer_decay ** (last - depths.layers[name]),
        )
        for name, parameter in backbone.named_parameters()
    }


def split_group(group: Mapping[str, Any], rate: Any, shares: Mapping[Tensor, Share]) -> list[dict[str, Any]]:  # noqa: ANN401 - a float or a tensor
    """Cut an optimizer's parameter group by depth, the rest (the head) first.

    Args:
        group: With its `params`: tensors, or pairs of name and tensor.
        rate: Its learning rate, where it has none of its own.
        shares: Where the backbone's parameters lie.

    Returns:
        Groups with a `name` and a learning rate each; one without a parameter of the backbone as it is.

    Raises:
        UserError: The rate is None, as where an optimizer finds its own.

    >>> weight, bias = nn.Linear(1, 1).parameters()
    >>> parts = split_group({"params": [weight, bias]}, 0.5, {weight: Share("backbone", 0.1)})
    >>> [(part["name"], part["lr"]) for part in parts]
    [('head', 0.5), ('backbone', 0.05)]
    """
    params = group["params"]
    members = [params] if isinstance(params, Tensor) else list(params)
    parts: dict[Share, list[Any]] = {}
    for member in members:
        parts.setdefault(_share(member, shares), []).append(member)
    rest = {**group, "params": members}
    if all(share.label == "head" for share in parts):
        return [rest]
    rate = group.get("lr", rate)
    if rate is None:
        raise UserError(
            "FineTuning gives the layers of the backbone their shares of the learning rate, got an optimizer "
            "that finds its own (`lr: null`). Give it an `lr`, or take `linear_probe` or `scratch`."
        )
    before = f"{group['name']}/" if "name" in group else ""
    ordered = sorted(parts, key=lambda share: (share.label != "head", -share.scale))
    return [
        {**rest, "params": parts[share], "name": before + share.label, "lr": rate * share.scale}
        for share in ordered
    ]


@contextmanager
def layerwise_rates(shares: Mapping[Tensor, Share]) -> Iterator[list[Cut]]:
    """Have every optimizer that is built within the block cut its parameter groups by depth.

    So schedulers, which read the groups when they are built, know of them; the optimizer may be any one. One
    that is given the groups of another, as SAM gives its own to the optimizer within, takes them as they are.
    Yields the groups, to which those of the block are added.

    Args:
        shares: As `rate_shares` gives them.
    """
    add = Optimizer.add_param_group
    cuts: list[Cut] = []

    def add_parts(self: Optimizer, param_group: dict[str, Any]) -> None:
        cut_before = any(cut.group["params"] is param_group["params"] for cut in cuts)
        if cut_before or "lr" not in {**self.defaults, **param_group}:  # one around another, or within it
            add(self, param_group)
            return
        for part in split_group(param_group, self.defaults.get("lr"), shares):
            if "name" in part:
                part["name"] = _free_name(part["name"], {group.get("name") for group in self.param_groups})
            add(self, part)
            cuts.append(Cut(self.param_groups[-1], _share(part["params"][0], shares).scale))

    Optimizer.add_param_group = add_parts  # type: ignore[method-assign]
    try:
        yield cuts
    finally:
        Optimizer.add_param_group = add  # type: ignore[method-assign]


def _free_name(name: str, taken: Collection[str | None]) -> str:
    """Return the name, with a number behind it where it is taken: Lightning wants each group's its own.

    >>> _free_name("head", ["head", "head 2"])
    'head 3'
    """
    names = (name if number == 1 else f"{name} {number}" for number in count(1))
    return next(free for free in names if free not in taken)


def _share(member: Any, shares: Mapping[Tensor, Share]) -> Share:  # noqa: ANN401 - a tensor, or its name and it
    return shares.get(member[1] if isinstance(member, tuple) else member, Share("head", 1.0))


def check_groups(resumed: Sequence[int], groups: Sequence[int]) -> None:
    """Refuse to go on with a run whose parameter groups were cut in another way.

    Args:
        resumed: Groups of each optimizer in the checkpoint.
        groups: Those of the run that is to go on.

    Raises:
        UserError: The numbers of groups differ.

    >>> check_groups([4], [4])
    """
    if len(groups) == len(resumed) and list(groups) != list(resumed):
        raise UserError(
            f"The checkpoint's optimizer has {sum(resumed)} parameter groups, this one {sum(groups)}: a run "
            "is resumed with the policy and the `layer_decay` that it began with. To go on in another way, "
            "begin a run from its weights, or take `probe_then_finetune` from the start."
        )
