import pytest

from lightning_recipes import EMA
from lightning_recipes.utils.resuming import key_in
from tests.beat.toys import trainer


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([EMA(0.5)], EMA(0.5).state_key),  # its own
        ([EMA(0.7)], EMA(0.7).state_key),  # the only one, of other settings
        ([EMA(0.7), EMA(0.8)], None),  # which of the two?
        ([], None),
    ],
)
def test_whose_state_it_is(others, expected):
    callback = EMA(0.5)
    keys = ["ModelCheckpoint{}", *(other.state_key for other in others)]
    assert key_in(callback, trainer(callback), keys) == expected


def test_the_state_of_another_callback_is_not_taken():
    callback, other = EMA(0.5), EMA(0.7)
    assert key_in(callback, trainer(callback, other), [other.state_key]) is None
