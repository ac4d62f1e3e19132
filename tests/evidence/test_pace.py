from math import inf

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_recipes.evidence.pace import pace
from lightning_recipes.evidence.trials import Trials
from tests.diagnosis.toys import Classifier, data, fit

RATE, STEPS = 0.3, 6
X, Y = (part[:16] for part in data())


class Net(Classifier):
    """Two layers, gradient descent, and decay and dropout, which the measurement switches off."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), RATE, weight_decay=0.1)
        return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3)]


class ClippingByHand(Net):
    limit = 0.05

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        nn.utils.clip_grad_norm_(self.parameters(), self.limit)
        optimizer.step()


def measured(kind=Net, steps=STEPS, **options):
    """Return the measurement and the module as it was."""
    return fit(
        kind,
        lambda trainer, module: (pace(Trials(trainer), [X, Y], steps, deadline=inf), module),
        epochs=1,
        validation=False,
        **options,
    )[1]


def descent(limit=inf):
    """Return what gradient descent by hand gives: losses, gradients, steps, weights at the beginning."""
    torch.manual_seed(0)
    found = {}

    def act(trainer, module):
        weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
        begun = [w.detach().clone() for w in weights]
        steps = []
        for _ in range(STEPS):
            w1, b1, w2, b2 = weights
            loss = functional.cross_entropy(torch.tanh(X @ w1.T + b1) @ w2.T + b2, Y)
            gradients = torch.autograd.grad(loss, weights)
            norm = torch.stack([g.norm() for g in gradients]).norm()
            kept = min(1.0, limit / (float(norm) + 1e-6))
            steps.append((loss.item(), float(norm), kept, [g * kept for g in gradients]))
            weights = [
                (w - RATE * kept * g).detach().requires_grad_()
                for w, g in zip(weights, gradients, strict=True)
            ]
        found.update(begun=begun, steps=steps, end=weights)

    fit(Net, act, epochs=1, validation=False)
    return found


def norm_of(*tensors):
    return float(torch.cat([t.detach().flatten() for t in tensors]).norm())


@pytest.mark.parametrize(
    ("kind", "options", "limit"),
    [
        (Net, {}, inf),
        (Net, {"gradient_clip_val": 0.05}, 0.05),
        (Net, {"gradient_clip_val": 1e3}, 1e3),
        (Net, {"accumulate_grad_batches": 2}, inf),
        (ClippingByHand, {}, 0.05),
    ],
)
def test_gradient_descent_in_closed_form(kind, options, limit):
    seen, _ = measured(kind, **options)
    expected = descent(limit)
    first, second = expected["begun"][0], expected["begun"][2]
    assert seen.error == ""
    assert seen.steps == STEPS
    assert seen.losses == pytest.approx([loss for loss, *_ in expected["steps"]], rel=1e-5)
    assert seen.gradient_norm == pytest.approx([norm for _, norm, *_ in expected["steps"]], rel=1e-5)
    assert seen.clip_coefficients == pytest.approx([kept for _, _, kept, _ in expected["steps"]], rel=1e-5)
    given = [gradients for *_, gradients in expected["steps"]]
    # for gradient descent −g·Δw is the rate times the squared norm
    assert seen.predicted == pytest.approx([RATE * norm_of(*g) ** 2 for g in given], rel=1e-3)
    early = [RATE * norm_of(g[0]) / norm_of(first) for g in given]
    ratios = [(a + RATE * norm_of(g[2]) / norm_of(second)) / 2 for a, g in zip(early, given, strict=True)]
    assert seen.ratios == pytest.approx(ratios, rel=1e-3)
    assert seen.first_updates == pytest.approx(
        [RATE * norm_of(g[0]) / norm_of(first) for g in given], rel=1e-3
    )
    end = expected["end"]
    assert seen.growth == pytest.approx(norm_of(end[0], end[2]) / norm_of(first, second), rel=1e-5)
    assert seen.with_gradient == {"net.0.weight", "net.0.bias", "net.3.weight", "net.3.bias"}
    assert set(seen.weights) == {"net.0.weight", "net.3.weight"}
    torch.testing.assert_close(seen.weights["net.0.weight"][1], given[1][0], rtol=1e-4, atol=1e-7)


def test_small_steps_keep_what_the_gradient_promises():
    class Slow(Net):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    seen, _ = measured(Slow, steps=12)
    kept = [(a - b) / p for a, b, p in zip(seen.losses, seen.losses[1:], seen.predicted, strict=False)]
    assert min(kept) > 0.95
    assert max(kept) < 1.01


def test_weights_without_gradient_do_not_count():
    class Half(Net):
        def loss(self, batch):
            return functional.cross_entropy(self.net[3](self.net[:3](batch[0]).detach()), batch[1])

    seen, _ = measured(Half)
    assert seen.with_gradient == {"net.3.weight", "net.3.bias"}
    assert len(seen.ratios) == STEPS
    assert min(seen.ratios) > 0


def test_what_the_step_raises():
    class Raising(Net):
        def loss(self, batch):
            if hasattr(self, "_trial_step"):
                raise ValueError("mine")
            return super().loss(batch)

    seen, _ = measured(Raising)
    assert seen.error.endswith("mine")
    assert (seen.steps, seen.losses, seen.growth) == (0, [], 1.0)
