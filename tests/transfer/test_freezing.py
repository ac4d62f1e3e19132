import copy

import pytest
import timm
import torch
from torch import nn

from lightning_recipes.transfer import Freezer, norm_layers

from ..contract.test_contract import hooks
from ..contract.toys import same


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)),
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)),
        nn.Linear(4, 2),
    )


def modes(module):
    return [part.training for part in module.modules()]


def asked(module):
    return [parameter.requires_grad for parameter in module.parameters()]


def state(part):
    return copy.deepcopy(part.state_dict())


OPTIMIZERS = {
    "SGD with momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.9, weight_decay=0.1),
    "Lamb": lambda p: timm.optim.lamb.Lamb(p, 0.1, weight_decay=0.1),
    "Lion": lambda p: timm.optim.lion.Lion(p, 0.1, weight_decay=0.1),
}


def train(module, optimizer, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_of_a_frozen_part_moves_whatever_the_optimizer_remembers(name):
    """Momentum, moments and weight decay, from steps in which the part still learned."""
    module = net()
    optimizer = OPTIMIZERS[name](module.parameters())
    train(module, optimizer)
    freezer = Freezer(module)
    freezer.freeze(set(module[0].parameters()))
    before, others = state(module[0]), state(module[1])
    train(module, optimizer)
    assert same(module[0].state_dict(), before)
    moved = [not torch.equal(value, others[key]) for key, value in module[1].state_dict().items()]
    assert all(moved)


def test_a_gradient_from_before_is_never_applied():
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module(torch.randn(8, 4)).sum().backward()
    freezer = Freezer(module)
    freezer.freeze(set(module[0].parameters()))
    assert all(parameter.grad is None for parameter in module[0].parameters())
    before = state(module[0])
    optimizer.step()
    assert same(module[0].state_dict(), before)


@pytest.mark.parametrize(
    "telling", [nn.Module.train, lambda module: module[0].train(), lambda m: m[0][1].train()]
)
def test_a_frozen_part_evaluates_whoever_tells_it_to_train(telling):
    module = net()
    freezer = Freezer(module)
    freezer.freeze(set(module[0].parameters()))
    before = state(module[0])
    telling(module)
    one = module[0](torch.ones(8, 4))
    telling(module)
    assert torch.equal(module[0](torch.ones(8, 4)), one)  # no dropout
    assert same(module[0].state_dict(), before)  # nor new statistics, nor a batch counted
    telling(module)
    freezer.keep_still()
    assert modes(module[0]) == [False] * 4
    assert module[1].training


def test_other_parts_go_on_training():
    module = net()
    freezer = Freezer(module)
    freezer.freeze(set(module[0].parameters()))
    before = state(module[1])
    module(torch.randn(8, 4))
    assert module[1][1].num_batches_tracked == before["1.num_batches_tracked"] + 1


def test_parts_are_frozen_and_let_go_in_turn():
    module = net()
    freezer = Freezer(module)
    everything = set(module.parameters())
    assert freezer.freeze(everything)
    assert not freezer.freeze(everything)
    assert modes(module) == [False] * len(modes(module))
    assert freezer.freeze(set(module[0].parameters()))
    assert modes(module[0]) == [False] * 4
    assert modes(module[1]) == [True] * 4
    assert freezer.freeze([])
    assert modes(module) == [True] * len(modes(module))
    assert asked(module) == [True] * len(asked(module))
    assert hooks(module) == 0


def test_what_the_user_has_frozen_stays_so():
    module = net()
    module[1][0].weight.requires_grad = False
    module[1][1].eval()
    before = asked(module), modes(module)
    freezer = Freezer(module)
    freezer.freeze(set(module.parameters()))
    freezer.freeze(set(module[0].parameters()))
    assert not module[1][0].weight.requires_grad
    assert module[1][0].bias.requires_grad
    assert modes(module[1]) == [True, True, False, True]
    freezer.freeze([])
    assert (asked(module), modes(module)) == before


def test_what_others_change_of_the_rest_is_left_alone():
    module = net()
    freezer = Freezer(module)
    freezer.freeze(set(module[0].parameters()))
    module[1][1].eval()
    module[2].weight.requires_grad = False
    freezer.freeze([])
    assert not module[1][1].training
    assert not module[2].weight.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_all_is_given_back(training):
    module = net()
    module[0][2].eval()
    module[2].bias.requires_grad = False
    before = asked(module), modes(module)
    freezer = Freezer(module)
    freezer.freeze(set(module[0].parameters()))
    if not training:
        module.eval()
    freezer.restore(training=training)
    assert asked(module) == before[0]
    assert modes(module) == (before[1] if training else [False] * len(before[1]))
    assert hooks(module) == 0
    freezer.restore()  # and a second time nothing
    assert asked(module) == before[0]


def test_two_parameters_of_equal_value_are_told_apart():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    freezer = Freezer(module)
    freezer.freeze({module[0].bias})
    assert asked(module) == [True, False, True, True]


def test_a_layer_with_parameters_that_learn_goes_on_training():
    module = net()
    freezer = Freezer(module)
    freezer.freeze({module[0][1].weight, module[0][0].weight, module[0][0].bias})
    assert [part.training for part in module[0]] == [False, True, True]


class Plain(nn.Module):
    """Layers without parameters, with and without statistics, between others."""

    def __init__(self):
        super().__init__()
        self.noise = nn.Dropout(0.5)
        self.stem = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4, affine=False)
        self.drop = nn.Dropout(0.5)
        self.block = nn.Linear(4, 4)
        self.late = nn.BatchNorm1d(4, affine=False)


def test_layers_without_parameters_are_frozen_with_those_before_them():
    module = Plain()
    freezer = Freezer(module)
    freezer.freeze(set(module.stem.parameters()))
    still = [name for name, part in module.named_children() if not part.training]
    assert still == ["stem", "norm", "drop"]
    freezer.freeze(set(module.parameters()))
    assert modes(module) == [False] * 7
    freezer.freeze([])
    assert modes(module) == [True] * 7


def test_layers_can_be_named_also_without_parameters():
    module = Plain()
    norms = norm_layers(module)
    assert norms == [module.norm, module.late]
    freezer = Freezer(module)
    assert not freezer.freeze([], layers=norms)
    assert [name for name, part in module.named_children() if not part.training] == ["norm", "late"]
    freezer.restore()
    assert modes(module) == [True] * 7


def test_norms_with_weights_take_nothing_else_with_them():
    module = net()
    norms = norm_layers(module)
    freezer = Freezer(module)
    freezer.freeze({p for layer in norms for p in layer.parameters()}, layers=norms)
    assert [part.training for part in module[0]] == [True, False, True]
    assert [part.training for part in module[1]] == [True, False, True]


def test_stochastic_depth_and_dropout_of_a_frozen_backbone_are_off():
    torch.manual_seed(0)
    backbone = timm.create_model(
        "test_vit", num_classes=0, img_size=32, drop_path_rate=0.5, proj_drop_rate=0.5
    )
    images = torch.randn(4, 3, 32, 32)
    freezer = Freezer(backbone)
    assert not torch.equal(backbone(images), backbone(images))
    freezer.freeze(set(backbone.parameters()))
    backbone.train()
    assert torch.equal(backbone(images), backbone(images))


def test_a_copy_is_frozen_like_its_original_and_independent_of_it():
    module = net()
    freezer = Freezer(module)
    freezer.freeze(set(module[0].parameters()))
    twin = copy.deepcopy(module)
    twin.train()
    before = state(twin[0])
    twin(torch.randn(8, 4))
    assert same(twin[0].state_dict(), before)
    assert not module[0].training
