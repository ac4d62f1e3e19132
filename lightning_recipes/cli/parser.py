"""An argument parser whose errors say which argument is wrong, and what may have been meant."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..utils.classes import import_class
from ..utils.errors import UserError, did_you_mean

_BASES: dict[str, type] = {
    "callbacks": Callback,
    "data": LightningDataModule,
    "logger": Logger,
    "model": LightningModule,
    "optimizer": Optimizer,
    "schedule": LRScheduler,
}
_OWN = ("data", "model")  # where few classes are known, all of them are worth listing


class RecipesParser(LightningArgumentParser):
    """Lightning's parser, raising `UserError` instead of printing what its unions tried."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UserError`; the parsers of nested classes leave the last word to the outer one."""
        if not self.exit_on_error:
            super().error(message, ex)
        options = [option for action in self._actions for option in action.option_strings]
        raise UserError(explain(message, options)) from ex


def explain(message: str, options: list[str]) -> str:
    r"""Return jsonargparse's message in one or two sentences.

    Args:
        message: What it says: nested keys, and each member of a union with its own complaint.
        options: All flat options of the parser.

    >>> explain("unrecognized arguments: --traner.max_epochs 3", ["--trainer.max_epochs", "--config"])
    'There is no argument `--traner.max_epochs`. Did you mean `--trainer.max_epochs`?'
    >>> explain("Parser key \"augment\": Expected a typing.Literal['none', 'light']. Got value: lite", [])
    "`--augment` must be one of none, light, got 'lite'. Did you mean `light`?"
    """
    message = _without_base(message)
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    base = _BASES.get(key.rpartition(".")[2])
    if found := re.search(r"unrecognized arguments: (-\S+)", message):
        name = found[1].split("=")[0]
        return f"There is no argument `{name}`.{did_you_mean(name, options) or ' See --help.'}"
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        path = ".".join(part for part in (key, found[1].removesuffix(".class_path")) if part)
        known = set(_parameters(base)) if base else {option.lstrip("-").split(".")[0] for option in options}
        if base is None and (owner := re.search(rf"class_path '([^']+)':\s+{re.escape(found[0])}", message)):
            known = set(inspect.signature(import_class(owner[1])).parameters)
        name = path.rpartition(".")[2]
        return f"There is no argument `--{path}` here.{did_you_mean(name, known - {name})}"
    last = _innermost(message)
    literals = re.findall(r"typing.Literal\[(.+?)\]", last)
    if (found := re.search(r"Expected a dot import path string: (\S+)", message)) and not literals:
        parts = re.findall(r"Subtypes: \[<class '(lightning_recipes\.[^']+)'>", last)
        return _no_class(key, found[1], base) if base or not parts else _no_parts(key, found[1], parts[0])
    if found := re.search(r"arguments are required: (.+)", message):
        names = [name.strip() for name in found[1].split(",")]
        missing = [f"`--{key}.{name}`" if key else f"`{name}`" for name in names]
        return f"Missing: {', '.join(missing)}. See --help."
    given = re.search(r"Got value: (.+?)(?:\. Got value|$)", last, re.M) or re.search(
        r"Given value: (.+)", last
    )
    if literals and given:
        choices = list(dict.fromkeys(choice.strip("' ") for group in literals for choice in group.split(",")))
        hint = did_you_mean(given[1], choices)
        return f"`--{key}` must be one of {', '.join(choices)}, got {given[1]!r}.{hint}"
    kinds = [kind for kind in re.findall(r"Expected a <class '([^']+)'>", last) if kind != "NoneType"]
    if kinds and given:
        return f"`--{key}` must be {' or '.join(dict.fromkeys(kinds))}, got {given[1]}."
    if found := re.search(r"class_path '([^']+)':\s+(.+)", message):
        return (
            f"`--{key}`: cannot import `{found[1]}`: {found[2].strip()}. Is it installed, or on PYTHONPATH?"
        )
    return re.sub(r"\s*\n\s*", " ", message).strip()


def _innermost(message: str) -> str:
    """Return what is said of the argument itself, without what is said of those that it is part of."""
    head, key, rest = message.rpartition("Parser key")
    depth = len(head) - len(head.rstrip(" "))
    first, *lines = rest.split("\n")
    return "\n".join(
        [key + first, *takewhile(lambda line: not line or line.startswith(" " * (depth + 1)), lines)]
    )


def _without_base(message: str) -> str:
    """Leave out that the class `Callback` has no such argument, where there is more to say."""
    base = r"\n *- Problem with given class_path 'lightning\.(?:pytorch\.)?Callback':.*?(?=\n *- )"
    shorter = re.sub(base, "", message, flags=re.S)
    return shorter if "Problem with given class_path" in shorter else message


def _no_class(key: str, name: str, base: type | None) -> str:
    known = list(_subclasses(base)) if base else []
    hint = did_you_mean(name, {child.__name__ for child in known})
    names = (child.__name__ for child in known if child.__module__.startswith("lightning_recipes"))
    ours = sorted(name for name in names if not name.startswith("_"))
    listed = f" Known: {', '.join(ours)}; another is given by its import path." if key in _OWN else ""
    return f"`--{key}`: there is no class `{name}`.{hint}{listed}"


@contextmanager
def explain_errors() -> Iterator[None]:
    """Turn what Lightning and jsonargparse say of a mistake into a `UserError`."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    except ValueError as error:  # jsonargparse wraps what a constructor raises
        if (cause := user_error(error)) is None:
            raise
        raise cause from None


def _no_parts(key: str, given: str, path: str) -> str:
    parts = ", ".join(f"`--{key}.{name}`" for name in inspect.signature(import_class(path)).parameters)
    return f"`--{key}` is given by its parts, {parts}, got {given!r}."


def user_error(error: BaseException) -> UserError | None:
    """Return the `UserError` that `error` is or was caused by, None where there is none."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, UserError):
        seen = seen.__cause__ or seen.__context__
    return seen


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = base.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)


def _parameters(base: type) -> Iterator[str]:
    """Yield what the constructors of `base`'s subclasses, and of their parents, take."""
    for child in _subclasses(base):
        for parent in child.__mro__[:-1]:
            if "__init__" in vars(parent):
                yield from list(inspect.signature(vars(parent)["__init__"]).parameters)[1:]
