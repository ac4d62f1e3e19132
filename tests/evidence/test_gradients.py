from math import isnan, nan

import torch
from torch import nn

from lightning_recipes.evidence.gradients import BackwardOrder, NonFiniteGradients, depth_ratio


def test_the_ratio_of_thirds():
    assert depth_ratio([1, 1, 1, 5, 5, 5, 2, 2, 2]) == 0.5
    assert depth_ratio([nan, 1, nan, 7, 4]) == 0.25
    assert isnan(depth_ratio([1, 2]))
    assert isnan(depth_ratio([1, 1, 0]))


class Crossed(nn.Module):
    def __init__(self):
        super().__init__()
        self.last, self.unused, self.first = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.last(self.first(x).relu())


def test_the_order_is_that_of_the_backward_pass_not_of_the_registration():
    module = Crossed()
    order = BackwardOrder(module)
    module(torch.ones(1, 2)).sum().backward()
    order.close()
    assert list(order.arrived)[-1].startswith("first")
    assert order.sort(["first.weight", "unused.weight", "last.weight"]) == [
        "last.weight",
        "first.weight",
        "unused.weight",
    ]
    assert not any(p._post_accumulate_grad_hooks for p in module.parameters())


def fed(*lines, **options):
    kept = NonFiniteGradients(3)
    for step, line in enumerate(lines, start=1):
        kept.update({i: torch.tensor(value) for i, value in enumerate(line)}, step, **options)
    return kept.read()


def test_the_first_step_is_kept_and_all_are_counted():
    inf = float("inf")
    assert fed([1.0, 1.0, 1.0]) == (0, 0, [])
    assert fed([1.0, 1.0, 1.0], [inf, nan, 1.0], [nan, nan, nan]) == (2, 2, [0, 1])


def test_a_step_that_was_left_out_does_not_count():
    assert fed([nan, 1.0, 1.0], unless=torch.tensor(1.0)) == (0, 0, [])
    assert fed([nan, 1.0, 1.0], unless=torch.tensor([0.0])) == (1, 1, [0])


def test_parameters_without_a_gradient_are_left_out():
    kept = NonFiniteGradients(3)
    kept.update({}, 1)
    kept.update({2: torch.tensor(nan)}, 2)
    assert kept.read() == (1, 2, [2])
