import itertools

import pytest

from lightning_recipes.utils.overrides import override


class Speaker:
    def speak(self):
        """Say it."""
        return "a"


def adding(letter):
    return lambda method: method() + letter


def test_a_method_is_hidden_and_comes_back():
    one, other = Speaker(), Speaker()
    remove = override(one, "speak", adding("b"))
    assert (one.speak(), other.speak()) == ("ab", "a")
    assert one.speak.__doc__ == "Say it."
    remove()
    assert one.speak() == "a"
    assert vars(one) == {}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_several_are_taken_back_in_any_order(order):
    owner = Speaker()
    letters = "bcd"
    removers = [override(owner, "speak", adding(letter)) for letter in letters]
    assert owner.speak() == "abcd"
    left = list(letters)
    for number in order:
        removers[number]()
        left.remove(letters[number])
        assert owner.speak() == "a" + "".join(left)
    assert vars(owner) == {}


def test_a_second_time_nothing_is_taken_back():
    owner = Speaker()
    first = override(owner, "speak", adding("b"))
    first()
    override(owner, "speak", adding("c"))
    first()
    assert owner.speak() == "ac"


def test_an_attribute_that_was_there_comes_back():
    owner = Speaker()
    owner.speak = lambda: "own"
    own = owner.speak
    remove = override(owner, "speak", adding("b"))
    assert owner.speak() == "ownb"
    remove()
    assert owner.speak is own


def test_what_another_has_put_above_stays():
    owner = Speaker()
    remove = override(owner, "speak", adding("b"))
    below = owner.speak
    owner.speak = lambda: below() + "c"
    above = owner.speak
    remove()
    assert owner.speak is above


def test_an_error_passes_through():
    owner = Speaker()

    def around(method):
        raise ZeroDivisionError

    remove = override(owner, "speak", around)
    with pytest.raises(ZeroDivisionError):
        owner.speak()
    remove()
    assert owner.speak() == "a"
