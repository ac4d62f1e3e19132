"""How deep the parameters of a backbone lie: its layers, and the stages that they make up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..utils.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Depths:
    """The parameters of a backbone by depth, 0 at the input.

    Args:
        layers: Each parameter's name to its layer; layers are blocks of a network, as timm groups them.
        stages: Each parameter's name to its stage; those of a ResNet are its stem and `layer1` to `layer4`.
        names: A name for each stage, input first: the module with which it begins.
    """

    layers: dict[str, int]
    stages: dict[str, int]
    names: list[str]

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return max(self.layers.values(), default=-1) + 1

    def stage(self, wanted: str | int) -> int:
        """Return the number of stages below a layer, by the layer's name; or a number of stages as it is.

        Args:
            wanted: A stage or any part of it (`layer3`, `blocks.7`), or a number of stages.

        Raises:
            UserError: There is no such part, or there are fewer stages.
        """
        if isinstance(wanted, int):
            if not 0 <= wanted <= len(self.names):
                raise UserError(
                    f"`freeze_until` must lie in 0..{len(self.names)}, the stages of the backbone "
                    f"({', '.join(self.names)}), got {wanted}."
                )
            return wanted
        found = [s for name, s in self.stages.items() if name == wanted or name.startswith(f"{wanted}.")]
        if not found:
            raise UserError(
                f"`freeze_until` must name a part of the backbone, got {wanted!r}."
                f"{did_you_mean(wanted, self.names)} Its stages are {', '.join(self.names)}."
            )
        return min(found)


def depths(backbone: Any) -> Depths:  # noqa: ANN401 - timm's classes
    """Return the depth of each parameter of a timm backbone, as its `group_matcher` has it.

    Args:
        backbone: A module with timm's method `group_matcher(coarse)`.

    Raises:
        UserError: It has none, or one that tells no stages, or matches nothing.

    >>> import timm
    >>> found = depths(timm.create_model("resnet10t", num_classes=0))
    >>> found.names, found.n_layers, found.stage("layer3")
    (['conv1', 'layer1', 'layer2', 'layer3', 'layer4'], 5, 3)
    """
    from timm.models import group_parameters  # slow to import

    if not callable(getattr(backbone, "group_matcher", None)):
        raise UserError(
            f"{type(backbone).__name__} has no `group_matcher`, which says how deep its layers lie. "
            "Leave `layer_decay` at 1 and `freeze_until` out, or give the class timm's method "
            "`group_matcher(self, coarse=False)`."
        )
    try:
        layers, stages = (
            dict(group_parameters(backbone, backbone.group_matcher(coarse=coarse), reverse=True))
            for coarse in (False, True)
        )
    except AssertionError as error:  # timm's way to say that it is not there yet
        raise UserError(
            f"The `group_matcher` of {type(backbone).__name__} does not tell its stages: {error}. Leave "
            "`layer_decay` at 1 and `freeze_until` out, or take another backbone."
        ) from error
    parts = {name.rpartition(".")[0] for name in layers}
    if len(parts) > 1 and len(set(layers.values())) == 1:
        raise UserError(
            f"The patterns of {type(backbone).__name__}'s `group_matcher` match none of its parameters, such "
            f"as {next(iter(layers))}, or tell them not apart. They are regular expressions of names."
        )
    names = []
    for stage in range(max(stages.values()) + 1):
        members = [name for name in stages if stages[name] == stage]
        names.append(_distinct_name(members, [name for name in stages if stages[name] != stage]))
    return Depths(layers, stages, names)


def whole(backbone: nn.Module) -> Depths:
    """Return a backbone as one layer in one stage, for where depth does not matter.

    >>> whole(nn.Linear(2, 1)).names
    ['backbone']
    """
    flat = {name: 0 for name, _ in backbone.named_parameters()}
    return Depths(flat, dict(flat), ["backbone"])


def _distinct_name(members: Sequence[str], others: Collection[str]) -> str:
    """Return the shortest module name that a stage's first parameter has and no other stage's.

    >>> _distinct_name(["blocks.1.norm.weight"], ["blocks.0.norm.weight"])
    'blocks.1'
    """
    parts = members[0].split(".")
    prefixes = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return next(p for p in prefixes if not any(f"{name}.".startswith(f"{p}.") for name in others))
