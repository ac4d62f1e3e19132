import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from lightning_recipes.checks.symmetry import symmetry, twins


def after_two_steps(net, shape=(8,), *, classes=4, optimizer=torch.optim.SGD):
    torch.manual_seed(1)
    x, y = torch.randn(16, *shape), torch.arange(16) % classes
    steps = optimizer(net.parameters(), 0.01)
    for _ in range(2):
        steps.zero_grad()
        F.cross_entropy(net(x), y).backward()
        steps.step()
    steps.zero_grad()
    F.cross_entropy(net(x), y).backward()
    return symmetry({name: (p.detach(), p.grad) for name, p in net.named_parameters()})


def mlp(*inits):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    for part in net[::2]:
        for init in inits:
            init(part.weight)
    return net


def test_all_zero():
    net = mlp(nn.init.zeros_)
    for part in net[::2]:
        nn.init.zeros_(part.bias)  # random ones would tell the units apart
    found = after_two_steps(net)
    assert (found.status, found.causes) == ("FAIL", ("zero-initialization",))
    assert "of the 32 units of `0.weight`" in found.message


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_constant(optimizer):
    net = mlp(lambda weight: nn.init.constant_(weight, 0.1))
    for part in net[::2]:
        nn.init.zeros_(part.bias)
    found = after_two_steps(net, optimizer=optimizer)
    assert (found.status, found.causes) == ("FAIL", ("constant-initialization",))


def test_one_symmetric_layer_of_three():
    net = mlp()
    nn.init.constant_(net[0].weight, 0.1)
    nn.init.constant_(net[2].weight, 0.1)
    nn.init.zeros_(net[0].bias)
    assert after_two_steps(net).status == "FAIL"


def test_a_zero_head_is_healthy():
    net = mlp()
    nn.init.zeros_(net[4].weight)
    nn.init.zeros_(net[4].bias)
    assert after_two_steps(net).status == "PASS"


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "test_vit", "mobilenetv3_small_050"])
def test_fresh_architectures_are_healthy(name):
    torch.manual_seed(0)  # resnet's last scale of each branch is zero, convnext's layer scales are constant
    options = {"img_size": 32} if "vit" in name else {}
    net = timm.create_model(name, num_classes=4, **options)
    found = after_two_steps(net, (3, 32, 32))
    assert found.status == "PASS", found.message


def test_twins_by_brute_force():
    torch.manual_seed(0)
    weight, gradient = torch.randn(50, 7), torch.randn(50, 7)
    weight[10:20], gradient[10:15] = weight[10], gradient[10]
    both = torch.cat([weight, gradient], 1)
    distance = torch.cdist(both, both).fill_diagonal_(1)
    assert twins(weight, gradient) == (distance.amin(1) < 1e-6).double().mean().item() == 5 / 50
    assert twins(weight) == 10 / 50


def test_rounding_does_not_hide_twins():
    weight = torch.ones(8, 100).mul(1 + 1e-7 * torch.randn(8, 100))
    assert twins(weight) == 1.0


def test_scales_biases_and_single_units_are_left_out():
    assert symmetry({"bias": (torch.ones(9), None), "one": (torch.ones(1, 9), None)}).status == "SKIP"


def test_a_frozen_random_layer_is_healthy():
    assert symmetry({"w": (torch.randn(9, 9), None)}).status == "PASS"
