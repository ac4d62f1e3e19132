"""The penalty's gradient against that of a module that adds the penalty to its loss."""

import re

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from lightning_recipes.callbacks import WeightPenalty, weight_penalty
from lightning_recipes.penalties import elastic_net
from lightning_recipes.utils.errors import UserError

from ..contract.toys import same
from .monitored import Net, batches, fit, net, waits_by_step

L1, L2 = 0.02, 0.05


class Summing(Net):
    """Adds the penalty to its loss, as a user would."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + self.penalty()

    def penalty(self):
        kernels = [p for p in self.parameters() if p.ndim >= 2]
        return sum(L1 * p.abs().sum() + L2 * p.square().sum() for p in kernels)


class ByHand(Net):
    """Two optimizers, stepped one after the other."""

    def __init__(self, *layers, **options):
        super().__init__(*layers, **options)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.net[0].parameters(), 0.1), torch.optim.Adam(self.net[2].parameters())]


class SummingByHand(ByHand):
    def manual_backward(self, loss):
        super().manual_backward(loss + Summing.penalty(self))


def overflowing():
    """Return fp16 autocast whose first gradients overflow, so that the scaler leaves steps out."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, backoff_factor=2.0**-6)
    return MixedPrecision("16-mixed", "cpu", scaler)


def fused(parameters):
    return torch.optim.SGD(parameters, 0.1, fused=True)


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3)


KINDS = {
    "SGD": (Net, Summing, {}, {}),
    "Adam": (Net, Summing, {"optimizer": lambda p: torch.optim.Adam(p, 0.01)}, {}),
    # in float32 its curvature makes a thousandth of a difference in rounding
    "LBFGS": (Net, Summing, {"optimizer": lbfgs}, {"precision": "64-true"}),
    "accumulation": (Net, Summing, {}, {"accumulate_grad_batches": 3}),
    "clipping": (Net, Summing, {}, {"gradient_clip_val": 0.05}),
    "clipping of values": (
        Net,
        Summing,
        {},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    ),
    "a gradient scaler": (Net, Summing, {}, {"plugins": overflowing}),
    "a gradient scaler and clipping": (Net, Summing, {}, {"plugins": overflowing, "gradient_clip_val": 0.05}),
    "a gradient scaler and a fused optimizer": (Net, Summing, {"optimizer": fused}, {"plugins": overflowing}),
    "two optimizers by hand": (ByHand, SummingByHand, {}, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_the_sum_would_have_given(kind):
    plain, summing, options, training = KINDS[kind]

    def trained(made, callbacks):
        module = net(kind=made, **options)
        settings = {key: value() if callable(value) else value for key, value in training.items()}
        fit(module, callbacks, epochs=2, **settings)
        return module.state_dict()

    penalised = trained(plain, [WeightPenalty(L1, l2=L2)])
    alone = trained(plain, [])
    # Autocast rounds the gradients of the loss to 11 bits, together with the penalty's or without them.
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if "plugins" in training else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(penalised, trained(summing, []), **tolerance)
    moved = max(float((penalised[name] - alone[name]).abs().max()) for name in alone)
    assert moved > 100 * tolerance["atol"] or kind.startswith("clipping")
    assert moved > 10 * tolerance["atol"]


def test_l2_of_half_the_decay_is_sgd_s_weight_decay():
    decayed = net(
        optimizer=lambda parameters: torch.optim.SGD(
            [{"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0.0} for p in parameters], 0.1
        )
    )
    penalised = net()
    fit(decayed, [])
    fit(penalised, [WeightPenalty(0.0, l2=0.05)])
    torch.testing.assert_close(penalised.state_dict(), decayed.state_dict(), rtol=1e-5, atol=1e-7)


class Still(Net):
    """Has a loss that moves nothing: what moves, moves by the penalty."""

    def training_step(self, batch, batch_idx):
        return sum(p.sum() for p in self.parameters() if p.requires_grad) * 0


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.ones(1, 3))
        self.mixing = nn.Parameter(torch.ones(3, 3))

    def no_weight_decay(self):
        return {"position"}


def test_biases_norms_frozen_and_exempt_weights_do_not_move():
    module = net(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 5), Embedding(), kind=Still)
    module.net[2].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, [WeightPenalty(0.01)])
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"net.0.weight", "net.3.mixing"}


def test_a_weight_of_zero_stays_and_others_move_by_rate_times_l1():
    module = net(nn.Linear(6, 5), kind=Still)
    with torch.no_grad():
        module.net[0].weight[:, :3] = 0
        module.net[0].weight[:, 3:] = torch.tensor([1.0, -1.0, 2.0])
    fit(module, [WeightPenalty(0.01)], data=batches(4))  # four steps at a rate of 0.1
    expected = torch.tensor([0.0, 0.0, 0.0, 0.996, -0.996, 1.996]).expand(5, 6)
    torch.testing.assert_close(module.net[0].weight.detach(), expected)


def test_a_pattern_chooses_weights_by_name():
    module = net(kind=Still)
    before = module.net[0].weight.detach().clone()
    last = module.net[2].weight.detach().clone()
    fit(module, [WeightPenalty(0.01, pattern="net.0.*")])
    assert not torch.equal(module.net[0].weight, before)
    assert torch.equal(module.net[2].weight, last)


def test_two_patterns_are_two_penalties_and_both_are_logged():
    module = net(kind=Still)
    first = WeightPenalty(0.01, pattern="net.0.*", name="first")
    second = WeightPenalty(0.02, pattern="net.2.*", name="second")
    logger = fit(module, [first, second], log_every_n_steps=12)
    sums = [float(module.net[n].weight.detach().abs().sum()) for n in (0, 2)]
    assert logger.values("train/first") == [pytest.approx(0.01 * sums[0], rel=1e-5)]
    assert logger.values("train/second") == [pytest.approx(0.02 * sums[1], rel=1e-5)]


def test_the_penalty_is_computed_and_logged_where_a_step_is_and_nowhere_else(monkeypatch):
    calls = []
    counted = lambda *given, **options: calls.append(given) or elastic_net(*given, **options)  # noqa: E731
    monkeypatch.setattr(weight_penalty, "elastic_net", counted)
    module = net(kind=Still)
    logger = fit(module, [WeightPenalty(0.01, l2=0.03)], log_every_n_steps=4)
    kernels = torch.cat([p.detach().flatten() for p in module.parameters() if p.ndim >= 2])
    logged = logger.values("train/penalty")
    assert len(logged) == len(calls) == 3
    assert logged[-1] == pytest.approx(float(0.01 * kernels.abs().sum() + 0.03 * kernels.square().sum()))
    assert logged == sorted(logged, reverse=True)


def test_the_host_does_not_wait_for_a_step_that_is_not_logged():
    waits = waits_by_step([WeightPenalty()], net(), log_every_n_steps=6)
    alone = waits_by_step([], net(), log_every_n_steps=6)
    more = [a - b for a, b in zip(waits, alone, strict=True)]
    assert [count for number, count in enumerate(more) if number % 6 not in (0, 5)] == [0] * 8


def test_a_pattern_that_matches_nothing_shows_the_names():
    says = "`pattern` 'head.*' matches none of the 2 weights: net.0.weight, net.2.weight."
    with pytest.raises(UserError, match=re.escape(says)):
        fit(net(), [WeightPenalty(pattern="head.*")])


def test_sparse_gradients_are_refused():
    class Sparse(Net):
        def training_step(self, batch, batch_idx):
            return self.net(torch.tensor([1, 2])).sum()

    with pytest.raises(UserError, match=r"cannot add to sparse gradients\. Build the embedding"):
        fit(net(nn.Embedding(4, 3, sparse=True), kind=Sparse), [WeightPenalty()])


def test_nothing_is_kept_of_a_module_after_a_fit():
    callback = WeightPenalty()
    fit(net(), [callback])
    assert same(vars(callback).get("_weights"), {})
