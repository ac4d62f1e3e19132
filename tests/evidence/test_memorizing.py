from itertools import count
from math import inf, log

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_recipes.diagnosis.overfitting import _learned
from lightning_recipes.evidence.loss_calls import LossCalls
from lightning_recipes.evidence.memorizing import least_loss, memorize, share_correct, standard_loss
from lightning_recipes.evidence.swaps import standardized
from lightning_recipes.evidence.trials import Trials
from tests.diagnosis.toys import Classifier, data, fit

N, K = 12, 5
Y = torch.arange(N) % K
SOFT = torch.randn(N, K, generator=torch.Generator().manual_seed(0)).softmax(1)
BLENDS = torch.rand(N, K, generator=torch.Generator().manual_seed(1))

LOSSES = {
    "hard": lambda z: functional.cross_entropy(z, Y),
    "smoothed": lambda z: functional.cross_entropy(z, Y, label_smoothing=0.3),
    "smoothed sum": lambda z: functional.cross_entropy(z, Y, label_smoothing=0.3, reduction="sum"),
    "soft": lambda z: functional.cross_entropy(z, SOFT),
    "soft smoothed": lambda z: functional.cross_entropy(z, SOFT, label_smoothing=0.2),
    "binary": lambda z: functional.binary_cross_entropy_with_logits(z, BLENDS),
    "binary sum": lambda z: functional.binary_cross_entropy_with_logits(z, BLENDS, reduction="sum"),
    "binary of probabilities": lambda z: functional.binary_cross_entropy(z.sigmoid(), BLENDS.to(z.dtype)),
    "squares": lambda z: functional.mse_loss(z, BLENDS),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_least_loss_is_what_minimisation_finds(name):
    torch.manual_seed(0)
    z = torch.zeros(N, K, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=400, line_search_fn="strong_wolfe", tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        loss = LOSSES[name](z)
        loss.backward()
        return loss

    optimizer.step(closure)
    with LossCalls() as calls:
        least = LOSSES[name](z).detach()
    assert least_loss(calls) == pytest.approx(float(least), abs=2e-3)


def test_closed_forms():
    def floor(loss, *arguments, **options):
        with LossCalls() as calls:
            loss(*arguments, **options)
        return least_loss(calls)

    z = torch.zeros(N, K)
    uniform = torch.full((N, K), 1 / K)
    assert floor(functional.cross_entropy, z, uniform) == pytest.approx(log(K))
    assert floor(functional.cross_entropy, z, Y, label_smoothing=1.0) == pytest.approx(log(K))
    half = torch.full((N, K), 0.5)
    assert floor(functional.binary_cross_entropy_with_logits, z, half) == pytest.approx(log(2))
    assert floor(functional.cross_entropy, z, Y) == 0
    assert floor(functional.cross_entropy, z, Y, torch.rand(K)) == 0
    assert floor(functional.cross_entropy, z, Y, torch.rand(K), label_smoothing=0.1) is None
    assert floor(functional.binary_cross_entropy_with_logits, z, half, half) is None
    assert floor(functional.softplus, z) is None


def test_right_answers():
    def share(act, batch=()):
        with LossCalls() as calls:
            act()
        found = share_correct(calls, batch)
        return None if found is None else float(found)

    z = functional.one_hot(Y, K).float()
    z[:3] = -z[:3]
    z = z.requires_grad_() * 1
    assert share(lambda: functional.cross_entropy(z, Y)) == 0.75
    ignored = Y.clone()
    ignored[:3] = -100
    assert share(lambda: functional.cross_entropy(z, ignored)) == 1
    assert share(lambda: functional.log_softmax(z, 1), (torch.zeros(N, 2), Y)) == 0.75
    assert share(lambda: functional.log_softmax(z, 1), (torch.zeros(N, 2),)) is None
    assert share(lambda: functional.mse_loss(z, z)) is None
    two = torch.tensor([[2.0], [-1.0], [3.0], [-0.1]])
    seen = functional.binary_cross_entropy_with_logits
    assert share(lambda: seen(two, torch.tensor([[1.0], [0.0], [0.0], [0.0]]))) == 0.75
    other, ce = (Y + 1) % K, functional.cross_entropy  # `other` is right of the first
    assert share(lambda: ce(z, other) + functional.cross_entropy(z, Y)) == pytest.approx(10 / 12)  # the first
    near = torch.full((N, K), 0.01)
    near[torch.arange(N), Y], near[torch.arange(N), other] = 0.46, 0.51
    assert share(lambda: ce(z, near)) == pytest.approx(10 / 12)


def test_the_usual_loss_goes_back_behind_what_was_made_of_the_logits():
    z = torch.randn(N, K, requires_grad=True) * 1
    expected = functional.cross_entropy(z, Y)
    onehot = functional.one_hot(Y, K).float()
    for loss in (
        lambda: functional.cross_entropy(z.softmax(1), Y),
        lambda: -functional.cross_entropy(z, Y),
        lambda: functional.cross_entropy(z, Y, reduction="sum"),
        lambda: functional.nll_loss(z, Y),
        lambda: functional.mse_loss(z.sigmoid(), onehot),
    ):
        with LossCalls() as calls:
            loss()
        torch.testing.assert_close(standard_loss(calls.seen[0], ()), expected)
    with pytest.raises(ValueError, match="not known"):
        standard_loss(None, ())


def test_standardized_inputs():
    inputs = torch.rand(8, 3, 4, 4) * 255
    inputs[0, 0, 0, 0] = float("nan")
    inputs[:, 2] = 7
    found = standardized(inputs)
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, :2].std((0, 2, 3)), torch.ones(2), atol=1e-4, rtol=0)
    assert bool((found[:, 2].abs() < 1e-3).all())


# Each swap repairs its own fault, and the faulty module by itself does not learn


class Plain(Classifier):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class Flipped(Plain):
    def loss(self, batch):
        return -super().loss(batch)


class Raw(Plain):
    """Inputs so large that the steps which suit them are far too small for anything else."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.3)


class Zero(Plain):
    def __init__(self):
        super().__init__()
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class Decayed(Plain):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=50)


MASKS = count()


class Dropped(Plain):
    def __init__(self):
        super().__init__()
        self.net.insert(2, nn.Dropout(0.97))

    def loss(self, batch):  # masks of its own at each step, whatever the seed
        torch.manual_seed(next(MASKS))
        return super().loss(batch)


class Evaluating(Plain):
    """Weights so large that only batch statistics make them usable, which evaluation does not take."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
        self.net[1].running_mean += 1e4
        self.net[1].running_var.fill_(1e8)

    def on_train_batch_start(self, batch, batch_idx):
        self.eval()


class Frozen(Plain):
    """A body of which a head can make nothing."""

    def __init__(self):
        super().__init__()
        self.net[:4].requires_grad_(False)
        self.net[0].weight.data *= 1e-4
        self.net[0].bias.data.zero_()


FAULTS = {
    "loss": (Flipped, 1.0),
    "inputs": (Raw, 500.0),
    "initialization": (Zero, 1.0),
    "regularization": (Decayed, 1.0),
    "modes": (Evaluating, 1.0),
}


def attempt(kind, scale=1.0, steps=150, **options):
    x, y = data()
    batch = [x[:24] * scale, y[:24]]

    def act(trainer, module):
        return memorize(
            Trials(trainer),
            batch,
            steps,
            deadline=options.pop("deadline", inf),
            enough=lambda seen: _learned(seen).passed,
            **options,
        )

    return fit(kind, act, epochs=1, validation=False)[1]


@pytest.mark.parametrize("name", FAULTS)
def test_a_swap_repairs_its_fault(name):
    kind, scale = FAULTS[name]
    assert not _learned(attempt(kind, scale)).passed
    assert _learned(attempt(kind, scale, swap=name)).passed


def test_dropout_and_frozen_weights():
    assert not _learned(attempt(Dropped, steps=60)).passed
    assert _learned(attempt(Dropped, swap="regularization")).passed
    assert not _learned(attempt(Frozen, steps=60)).passed
    assert _learned(attempt(Frozen, swap="frozen weights")).passed


def blended(z, y):
    share = float(torch.rand(()))
    other = y[torch.randperm(len(y))]
    return share * functional.cross_entropy(z, y) + (1 - share) * functional.cross_entropy(z, other)


HEALTHY = {
    "plain": functional.cross_entropy,
    "blends": blended,
    "by hand": lambda z, y: -(z.log_softmax(1) * (functional.one_hot(y, 3) * 0.9 + 0.1 / 3)).sum(1).mean(),
    "binary": lambda z, y: functional.binary_cross_entropy_with_logits(z, functional.one_hot(y, 3).float()),
    "auxiliary": lambda z, y: functional.cross_entropy(z, y) + 0.01 * z.square().mean(),
    "margins": functional.multi_margin_loss,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_losses_are_learned_by_heart(name):
    class Healthy(Plain):
        def loss(self, batch):
            return HEALTHY[name](self.net(batch[0]), batch[1])

    found = attempt(Healthy)
    assert _learned(found).passed
    assert found.error == ""
    assert not found.cut_off


def test_what_goes_wrong_is_told():
    class Raising(Plain):
        def loss(self, batch):
            if hasattr(self, "_trial_step"):
                raise ValueError("mine")
            return super().loss(batch)

    assert attempt(Raising).error.endswith("mine")
    late = attempt(Plain, deadline=0.0)
    assert late.cut_off
    assert len(late.losses) == 1
    assert attempt(Plain).slope() < 0.2
