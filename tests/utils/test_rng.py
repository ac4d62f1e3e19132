import random

import numpy as np
import torch

from lightning_recipes.utils.rng import generator_states, preserved_generators, set_generator_states


def draw():
    """Return numbers of each generator; a normal one leaves half a pair behind in Python and NumPy."""
    return random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand(), float(torch.randn(()))


def test_states_go_through_a_checkpoint(tmp_path):
    draw()
    torch.save(generator_states(), tmp_path / "states.pt")
    expected = [draw() for _ in range(3)]
    draw()
    set_generator_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_a_block_uses_nothing_up():
    states = generator_states()
    expected = draw()
    set_generator_states(states)
    with preserved_generators():
        draw()
    assert draw() == expected
