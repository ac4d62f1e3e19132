import re

import pytest
import timm
import torch
from torch import nn

from lightning_recipes.transfer import depths, whole
from lightning_recipes.utils.errors import UserError

NETS = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "resnet10t"]


def net(name):
    return timm.create_model(name, num_classes=0)


@pytest.mark.parametrize("name", NETS)
def test_every_parameter_has_a_layer_and_a_stage_and_none_is_empty(name):
    backbone = net(name)
    found = depths(backbone)
    names = {parameter for parameter, _ in backbone.named_parameters()}
    assert set(found.layers) == set(found.stages) == names
    assert set(found.layers.values()) == set(range(found.n_layers))
    assert set(found.stages.values()) == set(range(len(found.names)))


@pytest.mark.parametrize("name", NETS)
def test_a_layer_is_as_deep_as_it_is_late(name):
    """The layers with parameters are called in the order of their depths."""
    backbone = net(name).eval()
    found, called = depths(backbone), []
    for path, part in backbone.named_modules():
        own = [f"{path}.{parameter}" for parameter, _ in part.named_parameters(recurse=False)]
        if own and path:
            part.register_forward_hook(lambda *_, own=own: called.extend(own))
    size = 160 if "vit" in name else 32
    backbone(torch.zeros(1, 3, size, size))
    for depth in (found.layers, found.stages):
        order = [depth[parameter] for parameter in called]
        assert order == sorted(order)
    assert len(called) > 10


@pytest.mark.parametrize("name", NETS)
def test_a_stage_is_found_by_its_name_and_by_any_part_of_it(name):
    found = depths(net(name))
    assert len(set(found.names)) == len(found.names)
    for number, stage in enumerate(found.names):
        assert found.stage(stage) == number
    for parameter, stage in found.stages.items():
        assert found.stage(parameter) == stage
        assert found.stage(parameter.rpartition(".")[0] or parameter) <= stage


def test_the_stages_of_a_resnet_are_its_own():
    found = depths(net("resnet10t"))
    assert found.names == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert found.stages["bn1.weight"] == 0
    assert found.stage("layer3.0.conv1") == 3


def test_a_part_of_several_stages_begins_with_the_first():
    assert depths(net("test_vit")).stage("blocks") == 1


@pytest.mark.parametrize("number", [0, 2, 5])
def test_a_number_of_stages_is_one(number):
    assert depths(net("test_resnet")).stage(number) == number


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (6, "must lie in 0..5, the stages of the backbone (conv1, layer1, layer2, layer3, layer4), got 6"),
        (-1, "must lie in 0..5"),
        ("layer9", "must name a part of the backbone, got 'layer9'. Did you mean `layer"),
        ("lay", "got 'lay'"),  # the beginning of a name is no part
    ],
)
def test_a_stage_that_is_not_there(wanted, says):
    with pytest.raises(UserError, match=re.escape(says)):
        depths(net("test_resnet")).stage(wanted)


def test_a_backbone_without_group_matcher_is_refused():
    with pytest.raises(UserError, match=r"Sequential has no `group_matcher`.* Leave `layer_decay` at 1"):
        depths(nn.Sequential(nn.Linear(1, 1)))


class Mismatched(nn.Sequential):
    """Has patterns that were meant for another network."""

    def group_matcher(self, coarse=False):
        return {"stem": r"^stem", "blocks": r"^layers\.(\d+)"}


def test_patterns_that_match_nothing_are_refused():
    with pytest.raises(UserError, match=r"Mismatched's `group_matcher` match none .* such as 0.weight"):
        depths(Mismatched(nn.Linear(1, 1), nn.Linear(1, 1)))
    assert depths(Mismatched(nn.Linear(1, 1))).n_layers == 1


class Unfinished(nn.Sequential):
    """Knows its layers alone, as timm's RDNet."""

    def group_matcher(self, coarse=False):
        assert not coarse, "coarse grouping is not implemented"
        return {"blocks": r"^(\d+)"}


def test_a_backbone_that_does_not_tell_its_stages_is_refused():
    with pytest.raises(UserError, match=r"Unfinished does not tell its stages: coarse grouping is not"):
        depths(Unfinished(nn.Linear(1, 1), nn.Linear(1, 1)))


def test_a_backbone_as_a_whole():
    found = whole(nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1)))
    assert set(found.layers) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert set(found.layers.values()) == set(found.stages.values()) == {0}
    assert found.n_layers == 1
    assert whole(nn.ReLU()).n_layers == 0
