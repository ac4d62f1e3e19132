"""Dead units and saturation, on plain numbers and on what is measured of whole networks."""

import pytest
import timm
import torch
from torch import nn

from lightning_recipes.checks.dead_units import dead_units
from lightning_recipes.checks.layer_scale import layer_word
from lightning_recipes.checks.saturation import saturation
from lightning_recipes.evidence.activations import recording


def judged(net, *, samples=512, shape=(16,), scale=1.0):
    """Return what the two checks say of a network, observed twice."""
    torch.manual_seed(1)
    with torch.no_grad(), recording(net) as record:
        for _ in range(samples // 64):
            net(scale * torch.randn(64, *shape))
    layers = record.read()
    die = [layer for layer in layers if layer.can_die]
    bounded = [layer for layer in layers if layer.saturated is not None and layer.hidden and not layer.gate]
    return (
        dead_units(
            {layer.name: [layer.dead - layer.silent] * 2 for layer in die},
            units={layer.name: layer.units for layer in die},
            samples=layers[0].unit_samples,
        ),
        saturation(
            {layer.name: layer.saturated for layer in bounded},
            {layer.name: layer.spread for layer in bounded},
        ),
    )


def deep(act, layers=6, width=64, init=None):
    torch.manual_seed(0)
    parts = []
    for i in range(layers):
        linear = nn.Linear(16 if i == 0 else width, width)
        if init:
            init(linear)
        parts += [linear, act()]
    return nn.Sequential(*parts, nn.Linear(width, 4))


# Dead units


def test_one_observation_warns_and_two_fail():
    units = {"a": 64, "b": 64}
    assert dead_units({"a": [0.97], "b": [0.1]}, units=units, samples=512).status == "WARN"
    found = dead_units({"a": [0.95, 0.97], "b": [0.1, 0.1]}, units=units, samples=512)
    assert (found.status, found.causes[0]) == ("FAIL", "dead-relu")
    assert found.message == (
        "97% of the 64 units of `a` were zero on all of 512 samples in two observations, as in 1 of 2 "
        "layers; expected below 50%."
    )
    assert dead_units({"a": [0.97, 0.8], "b": [0.1, 0.1]}, units=units, samples=512).status == "WARN"


@pytest.mark.parametrize(
    ("units", "share", "status"), [(4096, 0.54, "WARN"), (4096, 0.53, "PASS"), (16, 0.9, "PASS")]
)
def test_half_of_the_units_may_be_off_at_the_initialization(units, share, status):
    assert dead_units({"a": [share]}, units={"a": units}, samples=512).status == status


def test_too_few_samples_or_no_relu_is_no_verdict():
    assert dead_units({"a": [1.0, 1.0]}, units={"a": 9}, samples=511).status == "SKIP"
    assert dead_units({}, units={}, samples=512).status == "SKIP"
    assert dead_units({"a": []}, units={"a": 9}, samples=512).status == "SKIP"


def test_a_bias_that_kills_a_layer_is_found():
    def kill(linear):
        nn.init.constant_(linear.bias, -30.0)

    found, _ = judged(deep(nn.ReLU, 2, init=kill))
    assert found.status == "FAIL"
    assert found.evidence["dead"]["1"] == 1.0


def test_zero_scales_are_not_dead_units():
    net = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    nn.init.zeros_(net[1].weight)
    found, _ = judged(net)
    assert found.status == "PASS"


@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU, nn.SiLU, nn.LeakyReLU])
@pytest.mark.parametrize("layers", [2, 12])
def test_fresh_networks_are_healthy(act, layers):
    for found in judged(deep(act, layers)):
        assert found.status in ("PASS", "SKIP"), found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_fresh_architectures_are_healthy(name):
    for found in judged(timm.create_model(name), shape=(3, 32, 32)):
        assert found.status in ("PASS", "SKIP"), found


# Saturation


def normal(size):
    def init(linear):
        nn.init.normal_(linear.weight, std=size)
        nn.init.zeros_(linear.bias)

    return init


def test_large_weights_saturate_tanh():
    _, found = judged(deep(nn.Tanh, width=256, init=normal(0.5)))
    assert (found.status, found.causes[0]) == ("WARN", "saturating-activation")
    assert "initialization-too-large" in found.causes


def test_a_deep_sigmoid_net_collapses():
    _, found = judged(deep(nn.Sigmoid))
    assert found.status == "WARN"
    assert found.causes == ("saturating-activation", "vanishing-gradients", "initialization-too-small")
    assert "falls from" in found.message


def test_xavier_tanh_is_healthy():
    _, found = judged(deep(nn.Tanh, init=lambda linear: nn.init.xavier_normal_(linear.weight)))
    assert found.status == "PASS"


def test_two_layers_are_not_deep():
    _, found = judged(deep(nn.Sigmoid, 2))
    assert found.status == "PASS"


def test_a_sigmoid_at_the_end_and_a_gate_are_no_hidden_ones():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.gate, self.last = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 1)

        def forward(self, x):
            return torch.sigmoid(100 * self.last(self.a(x) * torch.sigmoid(100 * self.gate(x))))

    _, found = judged(Gated())
    assert found.status == "SKIP"


def test_a_constant_first_layer_does_not_divide_by_zero():
    names = ["a", "b", "c"]
    assert saturation(dict.fromkeys(names, 0.1), dict.fromkeys(names, 0.0)).status == "PASS"


# A word a layer


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"std": float("nan")}, "not finite"),
        ({"std": 0.0}, "constant"),
        ({"std": 0.5, "dead": 0.6}, "dead"),
        ({"std": 0.1}, "shrinks"),
        ({"std": 50.0}, "grows"),
        ({"std": 1.0, "dead": 0.4, "saturated": 0.3}, "ok"),
    ],
)
def test_word(options, word):
    assert layer_word(first_std=1.0, **options) == word
