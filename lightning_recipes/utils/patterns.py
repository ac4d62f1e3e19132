"""What a pattern such as `layer3.*` chooses by name."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from .errors import UserError, did_you_mean

T = TypeVar("T")
_SHOWN = 30


def matching(named: Mapping[str, T], pattern: str, *, what: str) -> dict[str, T]:
    """Return the entries whose name the pattern matches: `*` anything, dots included, `?` one character.

    Args:
        named: What there is, by name.
        pattern: As a shell's, case counts; `layer3.*`, `*.conv2`.
        what: What the names are, for the error.

    Raises:
        UserError: Nothing matches; the names are shown.

    >>> matching({"stem.conv": 1, "head": 2}, "*.conv", what="layers")
    {'stem.conv': 1}
    """
    found = {name: value for name, value in named.items() if fnmatchcase(name, pattern)}
    if found:
        return found
    if not named:
        raise UserError(f"`pattern` {pattern!r} matches nothing: there are no {what}.")
    shown = ", ".join(name or "the module itself, ''" for name in list(named)[:_SHOWN])
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    inside = sum(fnmatchcase(name, f"{pattern}.*") for name in named)
    hint = f" `{pattern}.*` matches {inside}." if inside else did_you_mean(pattern, named)
    raise UserError(f"`pattern` {pattern!r} matches none of the {len(named)} {what}: {shown}{more}.{hint}")


def matching_layers(
    module: nn.Module, pattern: str, kinds: tuple[type[nn.Module], ...]
) -> dict[str, nn.Module]:
    """Return the layers of some kinds, subclasses included, whose name in `module` the pattern matches.

    Args:
        module: Where to look; it may be such a layer itself, whose name is "".
        pattern: See `matching`.
        kinds: Classes of layers.

    Raises:
        UserError: Nothing matches; the names of the layers of these kinds are shown.

    >>> list(matching_layers(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), "*", (nn.Linear,)))
    ['0']
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}
    listed = " or ".join(kind.__name__ for kind in kinds)
    return matching(layers, pattern, what=f"{listed} layers")
