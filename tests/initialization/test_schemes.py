import math
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_recipes.initialization import initialize
from lightning_recipes.initialization.reference import (
    REFERENCES,
    TOLERANCE,
    largest_difference,
    reference_table,
)
from lightning_recipes.utils.errors import UserError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


LAYERS = {  # each with the number of inputs that an output sums
    "linear": (nn.Linear(200, 100), 200),
    "conv": (nn.Conv2d(16, 128, 3), 9 * 16),
    "grouped": (nn.Conv2d(64, 256, 3, groups=4), 9 * 16),
    "depthwise": (nn.Conv2d(512, 512, 7, groups=512), 49),
    "conv1d": (nn.Conv1d(32, 128, 5), 5 * 32),
    "transposed": (nn.ConvTranspose2d(32, 64, 4, stride=2), 16 * 32 / 4),
    "transposed, grouped": (nn.ConvTranspose2d(64, 64, 4, stride=2, groups=2), 16 * 32 / 4),
}
STDS = {
    "zeros": lambda layer, inputs: 0.0,
    "normal": lambda layer, inputs: 0.01,
    "xavier": lambda layer, inputs: inputs**-0.5,
    "kaiming": lambda layer, inputs: (2 / inputs) ** 0.5,
}


@pytest.mark.parametrize("scheme", STDS)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_weights_have_the_standard_deviation_of_the_rule(kind, scheme):
    layer, inputs = LAYERS[kind]
    assert initialize(layer, scheme, generator=generator()) == [""]
    assert layer.weight.numel() > 10_000  # so that the standard deviation is known to 1 %
    assert layer.weight.std().item() == pytest.approx(STDS[scheme](layer, inputs), rel=0.03)
    assert abs(layer.weight.mean()) < 0.05 * layer.weight.std() or scheme == "zeros"
    assert not layer.bias.any()


@pytest.mark.parametrize("kind", LAYERS)
def test_xavier_keeps_the_variance_of_any_layer_away_from_the_border(kind):
    layer, _ = LAYERS[kind]
    initialize(layer, "xavier", generator=generator())
    size = {nn.Linear: (), nn.Conv1d: (64,)}.get(type(layer), (24, 24))
    channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    outputs = layer(torch.randn(16, channels, *size, generator=generator(1)))
    if isinstance(layer, nn.ConvTranspose2d):
        outputs = outputs[..., 4:-4, 4:-4]
    assert outputs.var().item() == pytest.approx(1, rel=0.1)  # 1600 outputs at the least: 4 %


def test_kaiming_keeps_the_second_moment_through_twenty_layers_with_relu():
    net = nn.Sequential(*(part for _ in range(20) for part in (nn.Linear(1024, 1024), nn.ReLU())))
    initialize(net, "kaiming", generator=generator())
    outputs = net(torch.randn(16, 1024, generator=generator(1)))
    # A layer of 1024 changes it by 5/1024 of its square at random: sqrt(20 * 5 / 1024) = 0.31 in all.
    assert 0.4 < outputs.square().mean() * 2 < 2.5


@pytest.mark.parametrize(
    ("ours", "options", "theirs"),
    [
        ("kaiming", {}, lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g)),
        (
            "kaiming",
            {"nonlinearity": "leaky_relu"},
            lambda w, g: nn.init.kaiming_normal_(w, a=0.01, generator=g),
        ),
        ("xavier", {}, lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="linear", generator=g)),
        (
            "kaiming",
            {"nonlinearity": "selu"},
            lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="selu", generator=g),
        ),
        ("glorot", {}, lambda w, g: nn.init.xavier_normal_(w, generator=g)),
        ("normal", {"std": 0.2}, lambda w, g: nn.init.normal_(w, std=0.2, generator=g)),
        ("orthogonal", {}, lambda w, g: nn.init.orthogonal_(w, generator=g)),
    ],
)
def test_agrees_with_torch_number_for_number(ours, options, theirs):
    layer = nn.Conv2d(6, 8, 3, groups=2)
    initialize(layer, ours, generator=generator(3), **options)
    torch.testing.assert_close(layer.weight.detach(), theirs(torch.empty(8, 3, 3, 3), generator(3)))


def test_xavier_of_the_handbook_is_not_torch_s():
    narrow = nn.Linear(400, 100)
    initialize(narrow, "xavier")
    assert narrow.weight.std().item() == pytest.approx(0.05, rel=0.03)
    initialize(narrow, "glorot")
    assert narrow.weight.std().item() == pytest.approx(math.sqrt(2 / 500), rel=0.03)


def test_orthogonal_rows_are_orthonormal_in_half_precision_too():
    layer = nn.Linear(16, 8, dtype=torch.bfloat16)
    initialize(layer, "orthogonal")
    weight = layer.weight.detach().float()
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=0.02, rtol=0)  # 8 bits of bfloat16


def net():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(8, 2)),
    )


def test_a_pattern_says_which_layers_and_all_else_stays():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert initialize(model, "zeros", pattern="1.*") == ["1.0"]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.0.weight", "1.0.bias"}
    assert initialize(model, "kaiming", pattern="[02].?") == ["0.0", "2.1"]
    assert initialize(model, "kaiming") == ["0.0", "1.0", "2.1"]


def test_a_generator_makes_it_repeatable_and_leaves_torch_s_alone():
    first, second = net(), net()
    state = torch.get_rng_state()
    initialize(first, "kaiming", generator=generator(5))
    initialize(second, "kaiming", generator=generator(5))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first[0][0].weight, second[0][0].weight)
    initialize(second, "kaiming")
    assert not torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"pattern": "3.*"},
            r"`pattern` '3.*' matches none of the 3 linear layers and convolutions: 0.0, 1.0, 2.1.",
        ),
        ({"pattern": "1"}, "none of the 3 linear layers and convolutions: 0.0, 1.0, 2.1. `1.*` matches 1."),
        ({"pattern": "2.l"}, "Did you mean `2.1`?"),
        ({"scheme": "kaimin"}, "`scheme` must be one of zeros, normal, xavier, glorot, kaiming, orthogonal"),
        ({"scheme": "kaimin"}, "got 'kaimin'. Did you mean `kaiming`?"),
        ({"nonlinearity": "gelu"}, "got 'gelu'."),
        ({"nonlinearity": "gelu"}, "For GELU and SiLU take relu."),
        ({"scheme": "normal", "std": 0.0}, "`std` must be above 0, got 0.0. For zeros, take"),
    ],
)
def test_says_what_is_wrong(options, says):
    model = net()
    before = model[0][0].weight.clone()
    with pytest.raises(UserError, match=re.escape(says)):
        initialize(model, **{"scheme": "kaiming", **options})
    assert torch.equal(model[0][0].weight, before)


def test_a_network_without_layers_has_none():
    with pytest.raises(UserError, match="there are no linear layers and convolutions"):
        initialize(nn.ReLU(), "zeros")


def test_a_lazy_layer_wants_a_batch_first():
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(UserError, match="'0' has no weights before its first batch"):
        initialize(lazy, "kaiming")
    lazy(torch.zeros(1, 2))
    assert initialize(lazy, "kaiming") == ["0"]


def test_a_parametrized_weight_is_set_through_its_parametrization():
    plain, normed = nn.Linear(6, 4), parametrizations.weight_norm(nn.Linear(6, 4))
    for layer in (plain, normed):
        initialize(layer, "xavier", generator=generator(2))
    torch.testing.assert_close(normed.weight, plain.weight)
    with pytest.raises(UserError, match="cannot be set: it is no longer finite"):
        initialize(normed, "zeros")  # the direction of a zero vector
    torch.testing.assert_close(normed.weight, plain.weight)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_a_hook_computes_is_refused():
    hooked = nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(UserError, match="weight of '0' is computed anew in each forward pass"):
        initialize(hooked, "kaiming")


# The handbook's table


@pytest.mark.parametrize("seed", [0, 1])
def test_the_reference_table_is_reproduced(seed):
    measured = reference_table(seed=seed)
    for name, case in REFERENCES.items():
        assert measured[name] == pytest.approx(case.stds, abs=TOLERANCE), name
    assert largest_difference(measured) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "scheme", "options", "activation"),
    [
        ("tanh, 0.01 N", "normal", {}, nn.Tanh),
        ("tanh, 0.05 N", "normal", {"std": 0.05}, nn.Tanh),
        ("tanh, Xavier", "xavier", {}, nn.Tanh),
        ("ReLU, Xavier", "xavier", {}, nn.ReLU),
        ("ReLU, Kaiming", "kaiming", {}, nn.ReLU),
    ],
)
def test_the_rows_of_the_table_are_what_the_schemes_do(name, scheme, options, activation):
    hidden = torch.randn(16, 1024, generator=generator(1))
    draws, stds = generator(2), []
    for _ in range(6):
        layer = nn.Linear(1024, 1024)
        initialize(layer, scheme, generator=draws, **options)
        hidden = activation()(layer(hidden)).detach()
        stds.append(hidden.std().item())
    # One draw of width 1024 scatters by 0.06 of 0.83 at the sixth ReLU layer.
    assert stds == pytest.approx(reference_table(width=1024)[name], rel=0.15, abs=0.001)


def test_a_difference_is_the_largest_of_all_rows():
    figures = {name: list(case.stds) for name, case in REFERENCES.items()}
    figures["ReLU, Xavier"][5] -= 0.04
    assert largest_difference(figures) == pytest.approx(0.04)
