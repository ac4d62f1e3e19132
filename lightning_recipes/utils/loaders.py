"""What can be asked of any loader."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Generator
from torch.utils.data import DataLoader

from .rng import preserved_generators


def independent(loader: Any) -> Any:  # noqa: ANN401 - any iterable of batches, or a list or dict of them
    """Return a loader of the same batches whose iteration leaves that of `loader` alone.

    A `DataLoader` with persistent workers has one iterator for all, so that a second `iter` would cut off the
    first. Data set and sampler are shared, and so are their generators: see `generators_of`.
    """
    if isinstance(loader, dict):
        return {name: independent(part) for name, part in loader.items()}
    if isinstance(loader, (list, tuple)):
        return [independent(part) for part in loader]
    if isinstance(loader, DataLoader):
        twin = copy.copy(loader)
        twin.__dict__.update(_iterator=None, persistent_workers=False)  # a DataLoader refuses assignment
        return twin
    make = getattr(loader, "independent", None)
    return loader if make is None else make()


@contextmanager
def undisturbed(loader: Any) -> Iterator[Any]:  # noqa: ANN401 - any iterable of batches, or a list or dict
    """Give a loader of the same batches; iterating it within the block leaves no trace.

    Neither in `loader`, which may be in the midst of an epoch, nor in any random numbers.
    """
    states = [(generator, generator.get_state()) for generator in generators_of(loader)]
    try:
        with preserved_generators():
            yield independent(loader)
    finally:
        for generator, state in states:
            generator.set_state(state)


def generators_of(loader: Any) -> Iterator[Generator]:  # noqa: ANN401 - any iterable of batches
    """Yield the generators that belong to a loader, its samplers and batch samplers."""
    if isinstance(loader, (dict, list, tuple)):
        for part in loader.values() if isinstance(loader, dict) else loader:
            yield from generators_of(part)
        return
    seen: set[int] = set()
    places = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    places.append(getattr(places[2], "sampler", None))
    for place in places:
        generator = getattr(place, "generator", None)
        if isinstance(generator, Generator) and id(generator) not in seen:
            seen.add(id(generator))
            yield generator
