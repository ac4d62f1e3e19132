import timm
import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from lightning_recipes.optimizers import parameter_groups


def test_the_groups_are_timm_s():
    model = timm.create_model("test_vit", num_classes=3)
    ours = parameter_groups(model)
    theirs = param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    by_decay = {group["weight_decay"]: {id(p) for p in group["params"]} for group in theirs}
    assert {id(p) for p in ours[0]["params"]} == by_decay[0.1]
    assert {id(p) for p in ours[1]["params"]} == by_decay[0.0]


def test_names_of_a_nested_module_are_found():
    model = nn.Sequential(timm.create_model("test_vit", num_classes=3))
    decay = {id(p) for p in parameter_groups(model)[0]["params"]}
    assert id(model[0].pos_embed) not in decay
    assert id(model[0].head.weight) in decay


def test_every_trainable_parameter_is_in_one_group():
    model = timm.create_model("test_resnet", num_classes=3)
    next(model.parameters()).requires_grad = False
    ids = [id(p) for group in parameter_groups(model) for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters() if p.requires_grad}


def test_decay_moves_weights_and_leaves_biases():
    layer = nn.Linear(2, 2)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    optimizer = torch.optim.AdamW(parameter_groups(layer), lr=0.1, weight_decay=0.5)
    layer(torch.zeros(1, 2)).sum().mul(0).backward()  # no gradient at all: what moves, moves by decay
    optimizer.step()
    assert torch.allclose(layer.weight, torch.full((2, 2), 0.95))
    assert torch.equal(layer.bias, torch.ones(2))


def test_an_empty_group_is_left_out():
    assert [group["name"] for group in parameter_groups(nn.Linear(2, 2, bias=False))] == ["decay"]
