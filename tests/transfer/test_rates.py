import itertools

import pytest
import timm
import torch
from timm.optim import Adafactor, param_groups_layer_decay
from timm.optim.lamb import Lamb
from timm.optim.lion import Lion
from torch import nn
from torch.optim import SGD, Adagrad, AdamW

from lightning_recipes.optimizers import parameter_groups
from lightning_recipes.transfer import Share, depths, layerwise_rates, rate_shares, split_group, whole
from lightning_recipes.utils.errors import UserError


def whole_net(name):
    """Return a network with its head, and the names of the backbone's parameters."""
    net = timm.create_model(name, num_classes=3)
    return net, {id(p): n for n, p in net.named_parameters()}


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_vit2", "test_convnext", "test_efficientnet"]
)
@pytest.mark.parametrize("decay", [0.5, 0.75])
def test_the_scales_are_timm_s_which_counts_the_head_as_a_layer_more(name, decay):
    net, names = whole_net(name)
    theirs = {
        names[id(p)]: group["lr_scale"]
        for group in param_groups_layer_decay(net, layer_decay=decay)
        for p in group["params"]
    }
    net.reset_classifier(0)
    shares = rate_shares(net, depths(net), layer_decay=decay)
    ours = {n: shares[p].scale for n, p in net.named_parameters()}
    assert max(ours.values()) == 1
    # timm's head may be a layer of its own, which then is the one that learns at 1
    extra = {round(theirs[n] / ours[n], 9) for n in ours}
    assert extra <= {1.0, decay}
    assert len(extra) == 1


def test_the_backbone_scale_multiplies_all():
    net = timm.create_model("test_resnet", num_classes=0)
    one = rate_shares(net, depths(net), layer_decay=0.5)
    tenth = rate_shares(net, depths(net), layer_decay=0.5, backbone_scale=0.1)
    for parameter in net.parameters():
        assert tenth[parameter].scale == pytest.approx(one[parameter].scale / 10)


def test_without_decay_the_backbone_is_one_group():
    net = timm.create_model("test_resnet", num_classes=0)
    assert set(rate_shares(net, depths(net), backbone_scale=0.1).values()) == {Share("backbone", 0.1)}


class Net(nn.Module):
    """A backbone of two layers and a head, in which all weights and all biases have one value."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.head = nn.Linear(2, 2)
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def shares(self):
        return rate_shares(self.backbone, whole(self.backbone), backbone_scale=0.1)


FORMS = {
    "a list": lambda net: list(net.parameters()),
    "a generator": lambda net: net.parameters(),
    "named pairs": lambda net: net.named_parameters(),
    "groups": lambda net: [
        {"params": [p for p in net.parameters() if p.ndim > 1]},
        {"params": (p for p in net.parameters() if p.ndim == 1), "weight_decay": 0.0},
    ],
    "groups of named pairs": lambda net: [
        {"params": [(n, p) for n, p in net.named_parameters() if "weight" in n]},
        {"params": [(n, p) for n, p in net.named_parameters() if "bias" in n]},
    ],
    "groups of one": lambda net: [{"params": p} for p in net.parameters()],
    "ours": parameter_groups,
}
OPTIMIZERS = {
    "AdamW": lambda p: AdamW(p, lr=0.5),
    "SGD": lambda p: SGD(p, lr=0.5, momentum=0.9),
    "Adagrad": lambda p: Adagrad(p, lr=0.5),
    "Lamb": lambda p: Lamb(p, lr=0.5),
    "Lion": lambda p: Lion(p, lr=0.5),
    "a tensor as the rate": lambda p: AdamW(p, lr=torch.tensor(0.5)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_is_in_one_group_with_its_rate(form, optimizer):
    net = Net()
    inside = {id(p) for p in net.backbone.parameters()}
    with layerwise_rates(net.shares()) as cuts:
        made = OPTIMIZERS[optimizer](FORMS[form](net))
    seen = [id(p) for group in made.param_groups for p in group["params"]]
    assert sorted(seen) == sorted(id(p) for p in net.parameters())
    for group in made.param_groups:
        (within,) = {id(p) in inside for p in group["params"]}
        assert float(group["lr"]) == pytest.approx(0.05 if within else 0.5)
    assert [cut.group for cut in cuts] == made.param_groups
    names = [group["name"] for group in made.param_groups if "name" in group]
    assert len(set(names)) == len(names)  # LearningRateMonitor stops at two of one name
    net.head(net.backbone(torch.ones(1, 2))).sum().backward()
    made.step()


def test_what_the_groups_had_beside_stays():
    net = Net()
    with layerwise_rates(net.shares()):
        made = AdamW(FORMS["groups"](net), lr=0.5, weight_decay=0.3)
    assert [(g["name"], g["weight_decay"]) for g in made.param_groups] == [
        ("head", 0.3),
        ("backbone", 0.3),
        ("head 2", 0.0),
        ("backbone 2", 0.0),
    ]


def test_names_of_parameters_stay_beside_them():
    net = Net()
    with layerwise_rates(net.shares()):
        made = SGD(net.named_parameters(), lr=0.5)
    assert [group["param_names"] for group in made.param_groups] == [
        ["head.weight", "head.bias"],
        ["backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias"],
    ]


def test_a_group_with_a_rate_of_its_own_keeps_its_ratio():
    net = Net()
    groups = [
        {"params": net.backbone[0].parameters(), "lr": 0.2},
        {"params": net.backbone[1].parameters()},
        {"params": net.head.parameters(), "lr": 3.0},
    ]
    with layerwise_rates(net.shares()):
        made = SGD(groups, lr=0.5)
    assert [group["lr"] for group in made.param_groups] == pytest.approx([0.02, 0.05, 3.0])


def test_a_step_of_sgd_moves_each_weight_by_its_rate():
    net = Net()
    with layerwise_rates(net.shares()):
        made = SGD(net.parameters(), lr=0.5)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    for name, parameter in net.named_parameters():
        moved = 0.05 if name.startswith("backbone") else 0.5
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 1 - moved))


def test_layers_lie_in_order_from_the_head_down():
    net = timm.create_model("test_resnet", num_classes=0)
    head = nn.Linear(2, 2)
    with layerwise_rates(rate_shares(net, depths(net), layer_decay=0.5)):
        made = SGD([*net.parameters(), *head.parameters()], lr=1.0)
    names = [group["name"] for group in made.param_groups]
    assert names == ["head", *(f"backbone.{layer}" for layer in (4, 3, 2, 1, 0))]
    assert [group["lr"] for group in made.param_groups] == [1, 1, 0.5, 0.25, 0.125, 0.0625]


def test_a_group_without_the_backbone_is_left_alone():
    head = nn.Linear(1, 1)
    group = {"params": list(head.parameters()), "name": "mine"}
    assert split_group(group, 0.5, {nn.Parameter(torch.zeros(1)): Share("backbone", 0.1)}) == [group]


@pytest.mark.parametrize("broken", [False, True])
def test_optimizers_that_are_built_later_are_not_cut(broken):
    net = Net()
    try:
        with layerwise_rates(net.shares()):
            if broken:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    made = SGD(net.parameters(), lr=0.5)
    assert len(made.param_groups) == 1
    assert "name" not in made.param_groups[0]


def test_two_backbones_have_a_rate_each():
    net = Net()
    first, second = net.backbone
    outer = rate_shares(first, whole(first), backbone_scale=0.1)
    inner = rate_shares(second, whole(second), backbone_scale=0.01)
    with layerwise_rates(outer), layerwise_rates(inner):
        made = SGD(net.parameters(), lr=1.0)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    for part, rate in ((first, 0.1), (second, 0.01), (net.head, 1.0)):
        assert {rates[id(p)] for p in part.parameters()} == {rate}
    for one, two in itertools.combinations(made.param_groups, 2):
        assert one["name"] != two["name"]


class Around(torch.optim.Optimizer):
    """Hands its groups on to an optimizer within, as implementations of SAM do."""

    def __init__(self, params, copied, **rate):
        super().__init__(params, {"rho": 0.05, **rate})
        groups = [dict(group) for group in self.param_groups] if copied else self.param_groups
        self.within = SGD(groups, lr=0.5)
        self.param_groups = self.within.param_groups


@pytest.mark.parametrize("rate", [{"lr": 0.5}, {}])
@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("form", ["a list", "groups", "ours"])
def test_an_optimizer_around_another_has_its_groups_cut_once(form, copied, rate):
    net = Net()
    inside = {id(p) for p in net.backbone.parameters()}
    with layerwise_rates(net.shares()) as cuts:
        made = Around(FORMS[form](net), copied, **rate)
    assert len(cuts) == len(made.param_groups) == len(made.within.param_groups)
    for group in [*made.param_groups, *made.within.param_groups]:
        (within,) = {id(p) in inside for p in group["params"]}
        assert group["lr"] == pytest.approx(0.05 if within else 0.5)
    names = [group["name"] for group in made.param_groups]
    assert len(set(names)) == len(names)


def test_an_optimizer_that_finds_its_own_rate_is_refused():
    net = Net()
    with layerwise_rates(net.shares()), pytest.raises(UserError, match=r"finds its own \(`lr: null`\)"):
        Adafactor(net.parameters(), lr=None)
