"""The states of all random-number generators of a process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def generator_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's, torch's and every CUDA device's generator, as plain data."""
    version, numbers, gauss = random.getstate()
    mersenne: Any = np.random.get_state(legacy=True)
    _, keys, position, has_gauss, cached = mersenne
    return {
        "python": [version, torch.tensor(numbers), gauss],
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Put the generators into the states that `generator_states` returned.

    >>> states = generator_states()
    >>> first = random.random(), np.random.rand(), torch.rand(()).item()
    >>> set_generator_states(states)
    >>> first == (random.random(), np.random.rand(), torch.rand(()).item())
    True
    """
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])


def seed_generators(seed: int) -> None:
    """Seed all generators; unlike `seed_everything`, leave the environment's variables alone.

    >>> seed_generators(1)
    >>> first = random.random(), np.random.rand(), torch.rand(()).item()
    >>> seed_generators(1)
    >>> first == (random.random(), np.random.rand(), torch.rand(()).item())
    True
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Leave all generators as they were before the block."""
    states = generator_states()
    try:
        yield
    finally:
        set_generator_states(states)
