import copy
import pickle
import re

import pytest
import timm
import torch
from timm.layers import Conv2dSame, ScaledStdConv2d
from torch import nn
from torch.nn import functional as F

from lightning_recipes.callbacks import EMA
from lightning_recipes.layers.drop_connect import drop_connect, remove_drop_connect
from lightning_recipes.utils.errors import UserError

from ..callbacks.monitored import fit, net


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def images():
    return torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def dropping():
    module = network()
    assert drop_connect(module, 0.4) == ["0", "3"]
    return module


def hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_training_drops_the_weights_as_torch_drops_units(dropping):
    torch.manual_seed(7)
    out = dropping(images())
    torch.manual_seed(7)
    kernel, matrix = (F.dropout(dropping[n].weight, 0.4) for n in (0, 3))
    hidden = F.conv2d(images(), kernel, dropping[0].bias, padding=1).relu().flatten(1)
    assert torch.equal(out, F.linear(hidden, matrix, dropping[3].bias))


def test_evaluation_is_the_plain_layer_and_draws_nothing(dropping):
    plain = network().eval()
    dropping.eval()
    state = torch.get_rng_state()
    assert torch.equal(dropping(images()), plain(images()))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_is_that_of_the_weights_that_were_used():
    layer = nn.Linear(200, 1, bias=False)
    drop_connect(layer, 0.25)
    layer(torch.ones(1, 200)).sum().backward()
    values = layer.weight.grad.flatten()
    assert torch.equal(values[values != 0], torch.full_like(values[values != 0], 4 / 3))
    assert 20 < int((values == 0).sum()) < 80  # 50 ± 5 standard deviations of 6.1


def test_reading_a_weight_in_training_gives_the_parameter_and_draws_nothing(dropping):
    expected = network()[3].weight
    dropping(images())
    state = torch.get_rng_state()
    assert dropping[3].weight is dict(dropping.named_parameters())["3.weight"]
    assert torch.equal(dropping[3].weight, expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_checkpoints_are_those_of_the_network_without_it(dropping):
    plain = network()
    assert dropping.state_dict().keys() == plain.state_dict().keys()
    assert [name for name, _ in dropping.named_parameters()] == [name for name, _ in plain.named_parameters()]
    nn.init.constant_(plain[3].weight, 0.5)
    dropping.load_state_dict(plain.state_dict())
    assert torch.equal(dropping.eval()(images()), plain(images()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_drops_its_own_weights(dropping, copied):
    other = copied(dropping)
    nn.init.zeros_(dropping[3].weight)
    assert torch.equal(other[3].weight, network()[3].weight)
    assert not torch.equal(other(images()), other(images()))
    assert remove_drop_connect(other) == ["0", "3"]
    assert torch.equal(other(images()), network()(images()))
    assert hooks(other) == 0
    assert hooks(dropping) == 4


def test_removing_leaves_the_network_as_it_was(dropping):
    assert remove_drop_connect(dropping) == ["0", "3"]
    assert remove_drop_connect(dropping) == []
    assert hooks(dropping) == 0
    assert torch.equal(dropping(images()), network()(images()))
    for layer, plain in zip(dropping, network(), strict=True):
        assert vars(layer).keys() == vars(plain).keys()


def test_a_second_call_sets_a_new_probability(dropping):
    drop_connect(dropping, 0.0, pattern="0")
    drop_connect(dropping, 0.0, pattern="3")
    assert hooks(dropping) == 4
    assert torch.equal(dropping(images()), network()(images()))


def test_a_pattern_chooses_layers():
    module = network()
    assert drop_connect(module, 0.5, pattern="3") == ["3"]
    assert hooks(module[0]) == 0


@pytest.mark.parametrize("layer", [Conv2dSame(1, 4, 3, stride=2), ScaledStdConv2d(1, 4, 3)])
def test_a_subclass_keeps_its_own_forward(layer):
    expected = layer(images())
    drop_connect(layer, 0.5)
    assert not torch.equal(layer(images()), expected)
    assert torch.equal(layer.eval()(images()), expected)


def test_every_layer_of_a_resnet_takes_part():
    model = timm.create_model("test_resnet", in_chans=1, num_classes=3)
    kernels = [name for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert drop_connect(model, 0.3) == kernels
    model(torch.randn(2, 1, 32, 32)).sum().backward()
    for name in kernels:
        gradient = model.get_submodule(name).weight.grad
        assert float((gradient == 0).float().mean()) > 0.2


def test_a_forward_that_fails_leaves_the_weight(dropping):
    with pytest.raises(RuntimeError):
        dropping[3](torch.zeros(1, 7))
    assert "weight" not in vars(dropping[3])


def test_compiled_training_draws_and_compiled_evaluation_does_not():
    module = network()
    drop_connect(module, 0.5)
    compiled = torch.compile(module, backend="eager")
    assert not torch.equal(compiled(images()), compiled(images()))
    module.eval()
    assert torch.equal(compiled(images()), network()(images()))


def test_an_average_of_the_weights_is_kept_and_saved_as_ever(tmp_path):
    module = net()
    drop_connect(module, 0.5)
    average = EMA(0.5)
    fit(module, [average])
    assert average.average_weights().keys() == dict(net().named_parameters()).keys()
    plain = net()
    plain.load_state_dict(module.state_dict())
    assert torch.equal(plain.net(torch.ones(1, 6)), module.eval().net(torch.ones(1, 6)))


def test_the_inner_projection_of_attention_is_left_out():
    module = nn.TransformerEncoderLayer(8, 2, 16)
    assert drop_connect(module, 0.5) == ["linear1", "linear2"]
    with pytest.raises(UserError, match=r"matches only inner projections of `nn\.MultiheadAttention`"):
        drop_connect(module, 0.5, pattern="*.out_proj")


def test_a_pattern_that_matches_nothing_shows_the_names():
    with pytest.raises(UserError, match=re.escape("none of the 2 Linear or Conv2d layers: 0, 3.")):
        drop_connect(network(), 0.5, pattern="head")


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_p_is_a_probability_below_1(p):
    with pytest.raises(UserError, match=rf"`p` must lie in \[0, 1\), got {p}"):
        drop_connect(network(), p)


def test_a_computed_weight_is_refused():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    module = nn.Sequential(nn.Linear(2, 2), layer)
    with pytest.raises(UserError, match=r"that of '1' is computed from others\. Leave it out by `pattern`"):
        drop_connect(module)
    assert hooks(module) == 0
