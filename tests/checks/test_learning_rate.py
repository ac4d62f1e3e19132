from math import exp, nan

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from lightning_recipes.checks.learning_rate import learning_rate

DATA = load_digits()
PIXELS = (torch.from_numpy(DATA.data).float() - 4.9) / 6
LABELS = torch.from_numpy(DATA.target)


def run(rate, steps=20, adam=False, seed=0, depth=2):
    """Return what a few steps on one batch measure, as `evidence.pace` does."""
    torch.manual_seed(seed)
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(64, 64), nn.ReLU())]
    net = nn.Sequential(*hidden, nn.Linear(64, 10))
    chosen = torch.randperm(len(PIXELS))[:32]
    x, y = PIXELS[chosen], LABELS[chosen]
    optimizer = (torch.optim.Adam if adam else torch.optim.SGD)(net.parameters(), rate)
    wide = [p for p in net.parameters() if p.dim() > 1]
    begun = [p.detach().norm() for p in wide]
    losses, predicted, ratios, gradients = [], [], [], []
    for _ in range(steps):
        loss = functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        old = [p.detach().clone() for p in net.parameters()]
        optimizer.step()
        change = [p.detach() - o for p, o in zip(net.parameters(), old, strict=True)]
        losses.append(loss.item())
        predicted.append(
            -sum(float((p.grad * d).sum()) for p, d in zip(net.parameters(), change, strict=True))
        )
        moved = [d.norm() / b for d, b in zip([d for d in change if d.dim() > 1], begun, strict=True)]
        ratios.append(float(torch.stack(moved).median()))
        gradients.append(float(torch.stack([p.grad.norm() for p in net.parameters()]).norm()))
    growth = float(torch.stack([p.detach().norm() for p in wide]).norm() / torch.stack(begun).norm())
    return learning_rate(ratios, growth, losses=losses, predicted=predicted, gradients=gradients)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("rate", [3e-4, 1e-3, 3e-3])
def test_usual_rates_of_adam_pass(rate, depth, seed):
    assert run(rate, adam=True, depth=depth, seed=seed).status == "PASS"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_usual_rates_of_gradient_descent_pass(rate, seed):
    assert run(rate, seed=seed).status == "PASS"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rate", "adam"), [(1e4, False), (1.0, True)])
def test_rates_that_are_far_too_high_fail(rate, adam, seed):
    found = run(rate, adam=adam, seed=seed)
    assert (found.status, found.causes[0]) == ("FAIL", "learning-rate-too-high")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rate", "adam"), [(1e-3, False), (1e-5, True)])
def test_rates_that_are_far_too_low_warn(rate, adam, seed):
    found = run(rate, adam=adam, seed=seed)
    assert (found.status, found.causes[0]) == ("WARN", "learning-rate-too-low")
    assert found.evidence["kept_of_predicted"] == pytest.approx(1, abs=0.02)


def test_a_rate_of_zero_and_a_gradient_of_zero():
    assert learning_rate([0.0] * 5, 1.0, gradients=[1.0] * 5).causes[0] == "missing-step"
    found = learning_rate([0.0] * 5, 1.0, gradients=[0.0] * 5)
    assert found.status == "FAIL"
    assert "dead-relu" in found.causes


def test_a_quadratic_in_closed_form():
    """On L = a·w²/2 a step of size r keeps 1 − a·r/2 of what its gradient promises."""
    a, rate = 1.0, 5e-4
    w = [(1 - a * rate) ** t for t in range(20)]
    losses = [a * v**2 / 2 for v in w]
    predicted = [rate * (a * v) ** 2 for v in w[:-1]]
    found = learning_rate([rate] * 5, 1.0, losses=losses, predicted=predicted)
    assert found.status == "WARN"
    assert found.evidence["kept_of_predicted"] == pytest.approx(1 - a * rate / 2)
    assert found.evidence["relative_decrease"] == pytest.approx(1 - (1 - a * rate) ** 2)
    # above a floor the same steps are large relative to what is left
    raised = [loss + 1000 * losses[0] for loss in losses]
    options = {"losses": raised, "predicted": predicted, "floor": 1000 * losses[0] + losses[-1] * 0.999}
    assert learning_rate([rate] * 5, 1.0, **options).status == "PASS"


def test_fine_tuning_may_be_slow():
    slow = [2.3 * exp(-1e-4 * t) for t in range(20)]
    options = {"losses": slow, "predicted": [2.3e-4] * 19}
    assert learning_rate([1e-6] * 5, 1.0, **options).status == "WARN"
    assert learning_rate([1e-6] * 5, 1.0, **options, fine_tuning=True).status == "PASS"
    short = {"losses": slow[:8], "predicted": [2.3e-4] * 7}
    assert learning_rate([1e-6] * 5, 1.0, **short).status == "PASS"


@pytest.mark.parametrize(
    ("ratios", "growth", "status"),
    [
        ([], 1.0, "SKIP"),
        ([nan] * 5, 1.0, "FAIL"),
        ([0.1] * 5, nan, "FAIL"),
        ([0.49] * 5, 4.9, "PASS"),
        ([0.51] * 5, 1.0, "FAIL"),
        ([0.1] * 5, 5.1, "FAIL"),
    ],
)
def test_the_bounds(ratios, growth, status):
    assert learning_rate(ratios, growth).status == status
