from math import inf, nan

import pytest

from lightning_recipes.utils.monitor import is_better


@pytest.mark.parametrize(
    ("new", "best", "options", "expected"),
    [
        (1.0, 2.0, {"mode": "min"}, True),
        (2.0, 2.0, {"mode": "min"}, False),
        (3.0, 2.0, {"mode": "max"}, True),
        (1.95, 2.0, {"mode": "min", "min_delta": 0.1}, False),
        (1.95, 2.0, {"mode": "min", "min_delta": 0.1, "relative": True}, False),
        (1.75, 2.0, {"mode": "min", "min_delta": 0.1, "relative": True}, True),
        (-2.25, -2.0, {"mode": "min", "min_delta": 0.1, "relative": True}, True),  # of the magnitude
        (-2.1, -2.0, {"mode": "min", "min_delta": 0.1, "relative": True}, False),
        (nan, 2.0, {"mode": "min"}, False),
        (-inf, 2.0, {"mode": "min"}, False),
        (2.0, nan, {"mode": "min"}, True),
        (2.0, inf, {"mode": "max"}, True),
        (nan, nan, {"mode": "max"}, False),
    ],
)
def test_what_beats_what(new, best, options, expected):
    assert is_better(new, best, **options) is expected
