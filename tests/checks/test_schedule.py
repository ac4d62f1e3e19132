from math import cos, pi

import pytest

from lightning_recipes.checks.schedule import schedule

N = 500


def warm(rate, steps=50):
    return lambda t: rate(t) * min(1.0, (t + 1) / steps)


HEALTHY = {
    "constant": lambda t: 1.0,
    "cosine": lambda t: 0.5 * (1 + cos(pi * t / N)),
    "warm cosine": warm(lambda t: 0.5 * (1 + cos(pi * t / N))),
    "linear": warm(lambda t: 1 - t / N),
    "step": lambda t: 0.1 ** (t // 150),
    "exponential": lambda t: 0.02 ** (t / N),
    "inverse square root": warm(lambda t: 1 / max(t, 50) ** 0.5),
    "restarts": lambda t: 0.5 * (1 + cos(pi * (t % 50) / 50)),
    "triangles": lambda t: abs((t / 60) % 2 - 1) + 0.01,
    "one cycle": lambda t: min((t + 1) / 150, 1e-5 + (N - t) / (N - 150)),
    "warm constant": warm(lambda t: 1.0, 450),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_usual_schedules_pass(name):
    assert schedule([HEALTHY[name](t) for t in range(N)]).status == "PASS"


def test_a_decay_that_ends_early():
    found = schedule([0.1 ** (t // 30) for t in range(N)])
    assert (found.status, found.causes) == ("WARN", ("schedule-too-short",))
    assert schedule([max(0.0, 1 - t / 100) for t in range(N)]).status == "WARN"


@pytest.mark.parametrize("length", [N, 2 * N, 10 * N])
def test_a_warm_up_without_an_end(length):
    found = schedule([(t + 1) / length for t in range(N)])
    assert (found.status, found.causes) == ("FAIL", ("warmup-too-long",))
    assert schedule([(1 - cos(pi * t / length)) / 2 for t in range(N)]).status == "FAIL"


def test_what_cannot_be_judged():
    assert schedule([0.1] * 5).status == "SKIP"
    assert schedule([0.0] * 50).status == "SKIP"
    assert schedule([float("nan")] * 50).status == "SKIP"
