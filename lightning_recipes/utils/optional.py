"""Packages that only some users need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .errors import UserError


def require(module: str, *, extra: str) -> ModuleType:
    """Import and return `module`, or say which extra brings it.

    Args:
        module: The dotted name to import.
        extra: The extra of this package that installs it.

    Raises:
        UserError: The package is not installed.

    >>> require("json", extra="none").__name__
    'json'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise UserError(
            f"`{module}` is not installed. Install it with `pip install 'lightning-recipes[{extra}]'`."
        ) from error
