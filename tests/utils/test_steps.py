from contextlib import contextmanager

import pytest

from lightning_recipes.utils.steps import around_next_step

from ..contract.toys import Toy


class Counting(Toy):
    def training_step(self, batch, batch_idx):
        if batch == "bad":
            raise ValueError(batch)
        return batch


def around(log, name):
    @contextmanager
    def context():
        log.append(f"+{name}")
        try:
            yield
        finally:
            log.append(f"-{name}")

    return context


def test_the_next_step_only():
    module, log = Counting(), []
    around_next_step(module, around(log, "a"))
    assert [module.training_step(i, 0) for i in range(3)] == [0, 1, 2]
    assert log == ["+a", "-a"]
    assert "training_step" not in vars(module)


def test_it_goes_also_when_the_step_raises_or_never_comes():
    module, log = Counting(), []
    remove = around_next_step(module, around(log, "a"))
    with pytest.raises(ValueError, match="bad"):
        module.training_step("bad", 0)
    remove()
    around_next_step(module, around(log, "b"))()
    assert module.training_step(1, 0) == 1
    assert log == ["+a", "-a"]
    assert "training_step" not in vars(module)


@pytest.mark.parametrize("first", [0, 1])
def test_two_are_stacked_and_taken_back_in_any_order(first):
    module, log = Counting(), []
    removes = [around_next_step(module, around(log, name)) for name in "ab"]
    removes[first]()
    module.training_step(1, 0)
    assert log == [f"+{'ba'[first]}", f"-{'ba'[first]}"]
    removes[1 - first]()
    assert module.training_step(2, 0) == 2
    assert len(log) == 2


def test_a_step_of_the_instance_s_own_comes_back():
    module, log = Counting(), []
    module.training_step = own = lambda batch, batch_idx: "own"
    around_next_step(module, around(log, "a"))
    assert module.training_step(1, 0) == "own"
    assert vars(module)["training_step"] is own
    assert log == ["+a", "-a"]
