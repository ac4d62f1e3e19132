"""A method of one object, hidden for a while by another function."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


def override(
    owner: Any,  # noqa: ANN401 - any object with methods
    name: str,
    around: Callable[[Callable[[], Any]], Any],
) -> Callable[[], None]:
    """Hide a method that takes no arguments by `around(method)`, until it is taken back.

    Several can be stacked, and taken back in any order.

    Args:
        owner: Whose method is hidden, by an attribute of the same name.
        name: Of the method.
        around: Takes the method as it was, and returns what the new one is to return.

    Returns:
        A function that takes it back; a second time it does nothing.

    >>> class Dog:
    ...     def speak(self):
    ...         return "woof"
    >>> dog = Dog()
    >>> remove = override(dog, "speak", lambda speak: speak() + "!")
    >>> dog.speak()
    'woof!'
    >>> remove()
    >>> dog.speak(), vars(dog)
    ('woof', {})
    """
    space, method = vars(owner), getattr(owner, name)
    below: dict[str, Any] = {name: space[name]} if name in space else {}
    lowest = getattr(method, "_lowest", method)  # what is left when all that lies below is taken back

    @wraps(method)
    def above() -> Any:  # noqa: ANN401 - whatever the method returns
        return around(below.get(name, lowest))

    above._below, above._lowest = below, lowest  # type: ignore[attr-defined]
    space[name] = above

    def remove() -> None:
        layer = space
        while layer.get(name) not in (None, above):
            layer = getattr(layer[name], "_below", {})
        if layer.get(name) is above:
            del layer[name]
            layer.update(below)

    return remove
