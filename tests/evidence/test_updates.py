import pytest
import timm
import torch
from torch import nn

from lightning_recipes.evidence.updates import copies, depth_groups, distances, norms, update_ratio

MODELS = ["resnet18", "resnet50", "vit_tiny_patch16_224", "convnext_tiny", "efficientnet_b0", "vgg11"]


def test_the_ratio_is_that_of_numpy():
    before, after = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    expected = ((after - before).numpy() ** 2).sum() ** 0.5 / (before.numpy() ** 2).sum() ** 0.5
    assert float(update_ratio(before, after)) == pytest.approx(expected)


def test_scaling_weights_and_step_alike_changes_nothing():
    before, after = torch.randn(2, 5, 7)
    torch.testing.assert_close(update_ratio(before, after), update_ratio(8 * before, 8 * after))
    assert update_ratio(before, before) == 0


def test_norms_and_distances_of_narrow_weights_are_summed_wide():
    tensors = [torch.full((300, 300), 300.0, dtype=dtype) for dtype in (torch.float16, torch.float32)]
    assert [float(norm) for norm in norms(tensors)] == pytest.approx([9e4, 9e4], rel=1e-3)
    moved = [tensor + 2 for tensor in tensors]
    assert [float(d) for d in distances(copies(tensors), moved)] == pytest.approx([600, 600], rel=1e-3)
    assert float(tensors[0][0, 0]) == 300  # the weights themselves are left alone


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("at_most", [3, 8, 20])
def test_groups_hold_each_weight_once_in_order(name, at_most):
    with torch.device("meta"):
        model = timm.create_model(name)
    groups = depth_groups(model, at_most)
    expected = [n for n, p in model.named_parameters() if p.ndim >= 2]
    assert [n for members in groups.values() for n in members] == expected
    assert len(groups) <= max(at_most, len(list(model.children())))
    assert all(groups.values())


def test_groups_are_named_for_what_they_hold():
    with torch.device("meta"):
        assert list(depth_groups(timm.create_model("resnet18"))) == [
            "conv1",
            "layer1",
            "layer2",
            "layer3",
            "layer4",
            "fc",
        ]
        transformer = depth_groups(timm.create_model("vit_tiny_patch16_224"))
    assert list(transformer)[-5:] == ["blocks.0-2", "blocks.3-5", "blocks.6-8", "blocks.9-11", "head"]
    assert list(depth_groups(nn.Sequential(*[nn.Linear(1, 1) for _ in range(16)]))) == [
        f"{i}-{i + 1}" for i in range(0, 16, 2)
    ]


def test_a_single_layer_and_none():
    assert depth_groups(nn.Linear(2, 2)) == {"weight": ["weight"]}
    assert depth_groups(nn.ReLU()) == {}
