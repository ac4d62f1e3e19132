from math import isnan, nan

from lightning_recipes.utils.history import StepHistory


def filled(steps, **options):
    history = StepHistory(10, **options)
    for step in steps:
        history.add(step, {"a": float(step)})
    return history


def test_rows_thin_out_evenly():
    history = filled(range(10, 10010, 10), at_most=16)
    gaps = {b - a for a, b in zip(history.steps, history.steps[1:], strict=False)}
    assert len(history.steps) <= 16
    assert gaps == {640}
    assert history.column("a") == [float(step) for step in history.steps]


def test_the_first_steps_stay():
    history = filled([1, 2, 3, *range(10, 10010, 10)], first=3, at_most=16)
    assert history.steps[:3] == [1, 2, 3]


def test_a_row_may_come_in_parts_and_out_of_order():
    history = StepHistory(1)
    history.add(2, {"a": 1.0})
    history.add(1, {"b": 3.0, "a": nan})
    history.add(2, {"b": 2.0})
    assert history.steps == [1, 2]
    assert history.table(["b"]) == [[3.0], [2.0]]
    assert isnan(history.column("a")[0])
    assert history.column("a")[1] == 1.0


def test_the_state_goes_on_as_it_was():
    whole, cut = filled(range(10, 1010, 10), at_most=16), filled(range(10, 510, 10), at_most=16)
    other = StepHistory(10, at_most=16)
    other.load_state_dict(cut.state_dict())
    for step in range(510, 1010, 10):
        other.add(step, {"a": float(step)})
    assert other.steps == whole.steps
    assert other.column("a") == whole.column("a")


def test_an_empty_one():
    other = StepHistory(1)
    other.load_state_dict(StepHistory(1).state_dict())
    assert (other.steps, other.names(), other.table(["a"])) == ([], [], [])
