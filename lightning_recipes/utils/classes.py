"""Classes by their import path."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def import_class(path: str) -> Any:  # noqa: ANN401 - whatever stands there
    """Return what the dotted `path` names.

    Raises:
        ImportError: It is no dotted path, or its module cannot be imported.
        AttributeError: The module has no such name.

    >>> import_class("pathlib.PurePosixPath")("a") / "b"
    PurePosixPath('a/b')
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ImportError(f"{path!r} is no import path")
    return getattr(import_module(module), name)
