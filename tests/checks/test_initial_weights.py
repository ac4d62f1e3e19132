import pytest
import timm
import torch
from torch import nn

from lightning_recipes.checks.initial_weights import initial_weights, to_kaiming
from lightning_recipes.evidence.weights import layer_weights


def net(init=None):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(512, 10))
    for part in layers:
        if init and hasattr(part, "weight"):
            init(part.weight)
    return layer_weights(layers)


def test_kaiming_is_one():
    torch.manual_seed(0)
    weight = torch.empty(256, 128, 3, 3)
    nn.init.kaiming_normal_(weight)
    assert to_kaiming(weight) == pytest.approx(1, abs=0.01)
    assert to_kaiming(torch.randn(256, 128)) == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize(
    ("init", "status", "cause"),
    [
        (nn.init.normal_, "WARN", "initialization-too-large"),
        (lambda w: nn.init.normal_(w, std=1e-4), "WARN", "initialization-too-small"),
        (nn.init.zeros_, "FAIL", "zero-initialization"),
        (lambda w: nn.init.constant_(w, 0.1), "FAIL", "constant-initialization"),
    ],
)
def test_faults(init, status, cause):
    found = initial_weights(net(init))
    assert (found.status, found.causes) == (status, (cause,))
    assert initial_weights(net(init), pretrained=True).status == "SKIP"


def test_a_zero_head_is_healthy():
    weights = net()
    weights["3.weight"] = torch.zeros(10, 512)
    assert initial_weights(weights).status == "PASS"


def test_a_single_layer_may_begin_at_zero():
    assert initial_weights({"w": torch.zeros(10, 64)}).status == "PASS"


def test_nothing_to_judge():
    assert initial_weights({"bias": torch.zeros(3)}).status == "SKIP"


@pytest.mark.parametrize(
    "name", ["resnet10t", "convnext_atto", "test_vit", "inception_v3", "edgenext_xx_small"]
)
def test_fresh_architectures_are_healthy(name):
    torch.manual_seed(0)
    assert initial_weights(layer_weights(timm.create_model(name))).status == "PASS"
