"""One case for each public callback: how it is built, what it refuses, and whether it only watches."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Callback

from lightning_recipes import callbacks


@dataclass(frozen=True)
class Case:
    """What the contract needs to know of a callback.

    Args:
        options: Settings for a short run on a toy.
        other: Other settings, under which a second instance lives beside the first.
        wrong: Settings that are refused, each with a part of the message.
        watches: It leaves training as it would be without it.
    """

    options: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)
    wrong: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    watches: bool = True


CASES = {
    "LearningCurves": Case(
        other={"name": "second"},
        wrong=[
            ({"name": "a/b"}, "file's name without folders, got 'a/b'. Give folders by `dirpath`"),
            ({"name": ""}, "file's name without folders, got ''"),
            ({"mode": "least"}, "`min` or `max`, got 'least'"),
        ],
    ),
}


def class_of(name: str) -> Callable[..., Callback]:
    return getattr(callbacks, name)


def make(name: str, **options: Any) -> Callback:
    return class_of(name)(**{**CASES[name].options, **options})


def make_other(name: str) -> Callback:
    return class_of(name)(**CASES[name].other)
