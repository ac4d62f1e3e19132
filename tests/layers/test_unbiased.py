"""Whether the mean over training's randomness is what evaluation gives: regulariser by regulariser.

Means are over thousands of draws with fixed seeds, and compared in standard errors of the mean, output by
output: below 5 is chance (one in a million for each), above 5 is a bias.
"""

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from lightning_recipes.layers.drop_connect import drop_connect
from lightning_recipes.layers.fractional_pool import FractionalPool
from lightning_recipes.modules import ImageClassifier

LIMIT = 5.0


class Residual(nn.Module):
    def __init__(self, branch, rate):
        super().__init__()
        self.branch, self.drop_path = branch, DropPath(rate)

    def forward(self, x):
        return x + self.drop_path(self.branch(x))


def connected(*layers, p=0.5):
    module = nn.Sequential(*layers)
    drop_connect(module, p)
    return module


def classifier(**options):
    """Return a classifier whose normalisation does not follow the batch, and whose branches are not 0."""
    model = ImageClassifier("test_resnet", num_classes=3, in_chans=1, **options)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
            layer.train = lambda mode=True, layer=layer: layer
            nn.init.ones_(layer.weight)
    return model


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


VECTORS = inputs(3, 8)
IMAGES = inputs(3, 1, 6, 6)
PICTURES = inputs(2, 1, 32, 32)


@torch.no_grad()
def biases(module, x, n=4000):
    """Return (mean over training − evaluation) and the standard error of the mean, output by output."""
    torch.manual_seed(11)
    module, x = module.double(), x.double()
    evaluated = module.eval()(x)
    module.train()
    total, squares = torch.zeros_like(evaluated), torch.zeros_like(evaluated)
    for _ in range(n):
        moved = module(x) - evaluated
        total, squares = total + moved, squares + moved * moved
    mean = total / n
    return mean, ((squares / n - mean * mean).clamp(min=1e-24) / n).sqrt()


UNBIASED = {
    "dropout": (lambda: nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 4)), VECTORS),
    "DropConnect, one linear layer": (lambda: connected(nn.Linear(8, 4)), VECTORS),
    "DropConnect, a convolution": (lambda: connected(nn.Conv2d(1, 2, 3), p=0.3), IMAGES),
    "DropConnect, two linear layers": (lambda: connected(nn.Linear(8, 6), nn.Linear(6, 4), p=0.2), VECTORS),
    "stochastic depth, one branch": (lambda: Residual(nn.Linear(8, 8), 0.3), VECTORS),
    "fractional pooling, averaged": (lambda: FractionalPool(evaluate="average", passes=1024), IMAGES),
}


def built(make):
    torch.manual_seed(2)
    return make()


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_over_training_is_what_evaluation_gives(name):
    make, x = UNBIASED[name]
    bias, error = biases(built(make), x)
    assert float((bias / error).abs().max()) < LIMIT
    assert float(error.max()) > 1e-4  # training is random


BIASED_UPWARD = {
    "dropout": lambda: nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 4), nn.ReLU()),
    "DropConnect": lambda: connected(nn.Linear(8, 4), nn.ReLU()),
    "stochastic depth": lambda: nn.Sequential(Residual(nn.Linear(8, 8), 0.3), nn.ReLU()),
}


@pytest.mark.parametrize("name", BIASED_UPWARD)
def test_behind_a_relu_the_mean_over_training_is_larger_as_jensen_says(name):
    bias, error = biases(built(BIASED_UPWARD[name]), VECTORS)
    assert float((bias / error).min()) > -LIMIT  # E max(0, z) is never below max(0, E z)
    assert float((bias / error).max()) > 2 * LIMIT
    assert float(bias.mean()) > 0.01


def test_fixed_regions_differ_from_the_mean_by_as_much_as_a_draw_does():
    pool = FractionalPool(evaluate="fixed")
    bias, error = biases(pool, inputs(16, 1, 16, 16), 1000)
    spread = float((error * 1000**0.5).square().mean().sqrt())  # of one draw about the mean
    assert float((bias / error).abs().max()) > 10 * LIMIT
    assert 0.7 < float(bias.square().mean().sqrt()) / spread < 1.4
    # neither way in the mean over pixels of noise: a maximum over four pixels is one wherever they lie
    assert abs(float(bias.mean())) < 0.05 * spread


def test_averaged_regions_come_nearer_in_proportion_to_the_passes():
    left = []
    for passes in (1, 4, 16, 64):
        bias, error = biases(FractionalPool(evaluate="average", passes=passes), inputs(16, 1, 16, 16), 4000)
        left.append(float((bias.square().mean() - error.square().mean()).clamp(min=0).sqrt()))
    assert left[1] < left[0] / 2
    assert left[2] < left[0] / 6
    assert left[3] < left[0] / 20


def test_a_classifier_s_dropout_is_unbiased_for_its_logits():
    bias, error = biases(built(lambda: classifier(drop_rate=0.5)), PICTURES, 300)
    assert float((bias / error).abs().max()) < LIMIT
    assert float(error.max()) > 1e-5


RANDOM = {
    **{name: (make, x) for name, (make, x) in UNBIASED.items()},
    **{f"{name} and ReLU": (make, VECTORS) for name, make in BIASED_UPWARD.items()},
    "fractional pooling, fixed": (lambda: FractionalPool(evaluate="fixed"), IMAGES),
    "a classifier's dropout": (lambda: classifier(drop_rate=0.5), PICTURES),
    "a classifier's stochastic depth": (lambda: classifier(drop_path_rate=0.5), PICTURES),
}


@pytest.mark.parametrize("name", RANDOM)
def test_training_is_random_and_evaluation_is_not(name):
    make, x = RANDOM[name]
    module = built(make)
    torch.manual_seed(3)
    outputs = torch.stack([module.train()(x) for _ in range(8)])
    assert len(outputs.flatten(1).unique(dim=0)) > 1
    state = torch.get_rng_state()
    first = module.eval()(x)
    assert torch.equal(module(x), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_torch_s_p_is_the_probability_to_drop():
    torch.manual_seed(0)
    kept = nn.Dropout(0.9)(torch.ones(10_000))
    assert float((kept == 0).float().mean()) == pytest.approx(0.9, abs=0.015)  # five times √(0.09/10⁴)
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 10.0]))


def test_stochastic_depth_rises_from_0_at_the_first_block_to_the_rate_at_the_last():
    model = ImageClassifier("resnet18", num_classes=3, in_chans=1, drop_path_rate=0.4)
    rates = [
        block.drop_path.drop_prob if isinstance(block.drop_path, DropPath) else 0.0
        for stage in (
            model.backbone.layer1,
            model.backbone.layer2,
            model.backbone.layer3,
            model.backbone.layer4,
        )
        for block in stage
    ]
    assert rates == pytest.approx([0.4 * number / 7 for number in range(8)])
