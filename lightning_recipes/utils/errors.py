"""The one exception that speaks to the user."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake that the user can mend: the message says what, the bound, what was got and the remedy.

    The command line prints it as one line, without a traceback.
    """


def did_you_mean(name: str, options: Iterable[str], *, most: int = 3) -> str:
    """Return the closest of `options` as a sentence to append to an error, or "" when nothing is close.

    >>> did_you_mean("resnet10", ["resnet10t", "vgg11"])
    ' Did you mean `resnet10t`?'
    """
    options = list(options)
    folded = {option.lower(): option for option in options}
    begun = sorted(option for option in folded if name and option.startswith(name.lower()))
    close = list(dict.fromkeys([*get_close_matches(name.lower(), folded, n=most, cutoff=0.6), *begun]))[:most]
    if not close:
        return ""
    names = [f"`{folded[match]}`" for match in close]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    return f" Did you mean {listed}?"


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise where the argument `name` is none of `choices`.

    Raises:
        UserError: With all of them, and the closest.
    """
    if value not in choices:
        hint = did_you_mean(str(value), choices)
        raise UserError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.{hint}")
