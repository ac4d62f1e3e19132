import re

import pytest
import timm
import torch
from torch import nn

from lightning_recipes.transfer.features import chosen_stages, extract, images_of, stage_features, stage_names
from lightning_recipes.utils.errors import UserError

from ..contract.test_contract import hooks


def batches(size=7, batch_size=3, channels=3, side=32):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, channels, side, side, generator=generator)
    return list(zip(images.split(batch_size), torch.arange(size).split(batch_size), strict=True))


def resnet():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=0)


class Counting(nn.Module):
    """Counts forward calls, and tells features from the mode in which they were made."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.weight = nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return self.drop(images).flatten(1) * self.weight


def test_the_features_are_those_of_an_evaluating_backbone_in_the_order_of_the_images():
    backbone, given = Counting(), batches()
    features, targets = extract(backbone, given)
    assert torch.equal(features, torch.cat([x for x, _ in given]).flatten(1))
    assert torch.equal(targets, torch.arange(7))
    assert backbone.calls == 3
    assert backbone.training
    assert not features.requires_grad


def test_features_of_half_precision_are_float32():
    features, _ = extract(nn.Flatten(), [(torch.ones(2, 1, 2, 2).half(), torch.zeros(2))])
    assert features.dtype == torch.float32


@pytest.mark.parametrize("take", [extract, stage_features])
def test_an_empty_split_is_refused(take):
    with pytest.raises(UserError, match="Cannot take features of an empty split"):
        take(resnet(), [])


@pytest.mark.parametrize("take", [extract, stage_features])
@pytest.mark.parametrize("broken", [False, True])
def test_modes_buffers_and_hooks_are_left_as_they_were(take, broken):
    backbone = resnet()
    backbone.layer1.eval()
    before = [part.training for part in backbone.modules()], dict(backbone.state_dict())
    before[1].update({name: value.clone() for name, value in before[1].items()})
    given = [*batches(), (torch.zeros(1, 9, 32, 32), torch.zeros(1))] if broken else batches()
    if broken:
        with pytest.raises(RuntimeError):
            take(backbone, given)
    else:
        take(backbone, given)
    assert [part.training for part in backbone.modules()] == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in backbone.state_dict().items())
    assert hooks(backbone) == 0
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_the_stages_of_a_resnet_by_hand():
    backbone, given = resnet(), batches()
    found, targets = stage_features(backbone, given)
    assert list(found) == ["act1", "layer1", "layer2", "layer3", "layer4"]
    assert torch.equal(targets, torch.arange(7))
    backbone.eval()
    x = torch.cat([images for images, _ in given])
    with torch.no_grad():
        x = backbone.act1(backbone.bn1(backbone.conv1(x)))
        torch.testing.assert_close(found["act1"], x.mean((2, 3)))
        x = backbone.maxpool(x)
        for stage in list(found)[1:]:
            x = getattr(backbone, stage)(x)
            torch.testing.assert_close(found[stage], x.mean((2, 3)))
        # and the last one, pooled, is what the backbone gives
        torch.testing.assert_close(found["layer4"], backbone(torch.cat([images for images, _ in given])))


def test_one_forward_pass_serves_all_stages():
    backbone, calls = resnet(), []
    backbone.conv1.register_forward_hook(lambda *_: calls.append("conv1"))
    backbone.layer4.register_forward_hook(lambda *_: calls.append("layer4"))
    stage_features(backbone, batches())
    assert calls == ["conv1", "layer4"] * 3


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_other_architectures_can_be_tapped(name):
    options = {"img_size": 32} if name == "test_vit" else {}
    backbone = timm.create_model(name, num_classes=0, **options)
    found, _ = stage_features(backbone, batches(), stages=3)
    assert list(found) == stage_names(backbone)[-3:]
    assert all(features.shape[0] == 7 and features.ndim == 2 for features in found.values())


def test_some_stages_are_as_when_all_are_taken():
    every, _ = stage_features(resnet(), batches())
    some, _ = stage_features(resnet(), batches(), stages=["layer3", "layer1"])
    assert list(some) == ["layer1", "layer3"]
    assert all(torch.equal(features, every[stage]) for stage, features in some.items())


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        (
            6,
            "must lie in 1..5, the stages of the backbone (act1, layer1, layer2, layer3, layer4), got 6",
        ),
        (0, "must lie in 1..5"),
        ([], "`stages` must name one or more of act1, layer1, layer2, layer3, layer4, got none"),
        (["layer4", "layer5"], "`stages` must be of act1, layer1, layer2, layer3, layer4, got layer5"),
    ],
)
def test_more_stages_than_the_backbone_has(stages, says):
    with pytest.raises(UserError, match=re.escape(says)):
        stage_features(resnet(), batches(), stages=stages)


def test_chosen_stages():
    names = ["a", "b", "c"]
    assert chosen_stages(names, None) == chosen_stages(names, 3) == [0, 1, 2]
    assert chosen_stages(names, 1) == chosen_stages(names, ["c"]) == [2]


def test_a_backbone_that_cannot_be_tapped_is_refused():
    with pytest.raises(UserError, match=r"Counting has no `forward_intermediates`.* such as a ResNet"):
        stage_features(Counting(), batches())


@pytest.mark.parametrize(
    ("at_most", "sizes"), [(7, [3, 3, 1]), (99, [3, 3, 1]), (4, [3, 1]), (3, [3]), (1, [1])]
)
def test_so_many_images_and_no_batch_more(at_most, sizes):
    taken = []

    def given():
        for images, targets in batches():
            taken.append(len(images))
            yield images, targets

    found = list(images_of(given(), at_most))
    assert [len(x) for x, _ in found] == [len(y) for _, y in found] == sizes
    assert len(taken) == len(sizes)
