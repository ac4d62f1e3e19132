import re

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from lightning_recipes.callbacks import EMA, MaxNorm
from lightning_recipes.utils.errors import UserError

from .monitored import Net, batches, fit, net


class Norms(Callback):
    """Notes the largest row norm after each batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        rows = [p.detach().flatten(1).norm(dim=1).max() for p in pl_module.parameters() if p.ndim >= 2]
        self.seen.append(float(max(rows)))


def test_training_is_a_loop_with_torch_renorm():
    module, twin = net(), net()
    fit(module, [MaxNorm(0.5)])
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    for batch in batches():
        optimizer.zero_grad()
        twin.training_step(batch, 0).backward()
        optimizer.step()
        with torch.no_grad():
            for layer in (twin.net[0], twin.net[2]):
                layer.weight.copy_(torch.renorm(layer.weight, 2, 0, 0.5))
    torch.testing.assert_close(module.state_dict(), twin.state_dict(), rtol=1e-4, atol=1e-6)


def test_no_row_is_ever_above_the_bound_and_the_weights_cannot_explode():
    wild = net(optimizer=lambda parameters: torch.optim.SGD(parameters, 100.0, momentum=0.9))
    norms = Norms()
    fit(wild, [MaxNorm(3.0), norms])
    assert len(norms.seen) == 12
    assert max(norms.seen) <= 3.0 * (1 + 1e-6)
    assert max(norms.seen) > 2.9


def test_convolutions_both_ways_are_bounded_by_unit_and_embeddings_and_biases_are_not():
    class Images(Net):
        def training_step(self, batch, batch_idx):
            self.net[3](torch.tensor([0])).sum().backward(retain_graph=True)
            return self.net[:3](torch.ones(1, 2, 5, 5)).square().mean()

    layers = [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.ConvTranspose2d(3, 4, 3), nn.Embedding(2, 3)]
    module = net(*layers, kind=Images)
    for p in module.parameters():
        nn.init.constant_(p, 2.0)
    fit(module, [MaxNorm(1.0)], data=batches(1))
    torch.testing.assert_close(module.net[0].weight.flatten(1).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(module.net[2].weight.transpose(0, 1).flatten(1).norm(dim=1), torch.ones(4))
    for untouched in (module.net[0].bias, module.net[3].weight):
        assert float(untouched.detach().norm()) > 1.5


def test_a_pattern_and_a_frozen_layer_leave_weights_alone():
    module = net(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    for p in module.parameters():
        nn.init.constant_(p, 1.0)
    module.net[0].requires_grad_(False)
    fit(module, [MaxNorm(0.5, pattern="net.[02]")], data=batches(1))
    norms = [float(module.net[n].weight.detach().norm(dim=1).max()) for n in (0, 2, 4)]
    assert norms[:2] == pytest.approx([6**0.5, 0.5])
    assert norms[2] > 1


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("scale", [2.0**60, 1.0])
def test_a_step_that_a_scaler_leaves_out_is_none(optimizer, scale):
    module = net(optimizer=lambda parameters: optimizer(parameters, 1e-3))
    nn.init.constant_(module.net[0].weight, 2.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=0.99)
    fit(module, [MaxNorm(1.0)], data=batches(1), plugins=MixedPrecision("16-mixed", "cpu", scaler))
    skipped = scale > 1
    assert torch.equal(module.net[0].weight, torch.full((5, 6), 2.0)) == skipped
    assert (float(module.net[0].weight.detach().norm(dim=1).max()) > 1.01) == skipped


def test_an_average_of_the_weights_is_one_of_bounded_weights():
    module = net(optimizer=lambda parameters: torch.optim.SGD(parameters, 100.0))
    average = EMA(0.5, warmup=False)
    fit(module, [average, MaxNorm(1.0)])
    for weight in (w for w in average.average_weights().values() if w.ndim >= 2):
        assert float(weight.norm(dim=1).max()) <= 1.0 + 1e-5  # the ball is convex


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_the_optimizers_keep_no_hooks(error):
    made = []

    class Failing(Callback):
        def on_train_batch_end(self, trainer, *_):
            made.extend(trainer.optimizers)
            assert len(trainer.optimizers[0]._optimizer_step_post_hooks) == 1
            if error:
                raise error

    if error:
        with pytest.raises(error):
            fit(net(), [MaxNorm(), Failing()])
    else:
        fit(net(), [MaxNorm(), Failing()])
    assert made
    assert not made[0]._optimizer_step_post_hooks


def test_a_pattern_that_matches_nothing_shows_the_names():
    with pytest.raises(UserError, match=re.escape("layers: net.0, net.2.")):
        fit(net(), [MaxNorm(pattern="head")])
