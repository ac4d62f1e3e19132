"""Public names that are imported when they are first used (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, sources: Mapping[str, str]) -> tuple[list[str], Callable[[str], Any]]:
    """Return `__all__` and `__getattr__` for a package whose names live in its submodules.

    A package that imports torch at its top costs every command seconds, `--help` too.

    Args:
        package: The package's `__name__`.
        sources: Public name to the submodule that defines it.

    >>> names, get = lazy_names("json", {"JSONDecoder": "decoder"})
    >>> names, get("JSONDecoder").__name__
    (['JSONDecoder'], 'JSONDecoder')
    """

    def get(name: str) -> Any:  # noqa: ANN401 - any public object
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{sources[name]}"), name)

    return sorted(sources), get
