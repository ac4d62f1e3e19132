import pytest
import timm
import torch
from sklearn.datasets import load_digits
from torch import nn

from lightning_recipes.evidence.freshness import looks_untrained


def net(norm):
    layers = [nn.Linear(64, 128), nn.LayerNorm(128) if norm else nn.Identity(), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


@pytest.mark.parametrize("norm", [False, True])
def test_trained_weights_are_told_from_fresh_ones(norm):
    torch.manual_seed(0)
    data = load_digits()
    images, labels = torch.from_numpy(data.data).float() / 16, torch.from_numpy(data.target)
    model = net(norm)
    assert looks_untrained(model) is True
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(200):
        batch = torch.randint(len(images), (64,))
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert looks_untrained(model) is False


@pytest.mark.parametrize(
    "fill",
    [
        nn.init.xavier_uniform_,
        nn.init.kaiming_normal_,
        nn.init.orthogonal_,
        lambda weight: nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04),
    ],
)
def test_usual_initialisations_look_untrained(fill):
    torch.manual_seed(0)
    model = net(False)
    for weight in model.parameters():
        if weight.ndim > 1:
            fill(weight)
    assert looks_untrained(model) is True


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_100"])
def test_timm_without_pretraining_looks_untrained(name):
    torch.manual_seed(0)
    assert looks_untrained(timm.create_model(name, pretrained=False)) is True


def test_what_cannot_be_told():
    assert looks_untrained(nn.Linear(4, 4)) is None
    assert looks_untrained(nn.ReLU()) is None
    model = net(True)
    assert looks_untrained(model, names=["0.weight"]) is True
