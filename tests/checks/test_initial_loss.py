from math import log

import pytest
import timm
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from lightning_recipes.checks.initial_loss import expected_loss, initial_loss, label_independence


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("name", ["cross_entropy", "multi_margin_loss"])
def test_expected_is_what_a_model_without_preference_gets(name, classes):
    y = torch.arange(2 * classes) % classes
    value = float(getattr(functional, name)(torch.zeros(len(y), classes), y))
    assert expected_loss(name, classes) == pytest.approx(value, rel=1e-5)
    assert initial_loss(value, name=name, num_classes=classes).status == "PASS"


def test_other_losses():
    z, t = torch.zeros(8, 3), torch.rand(8, 3)
    binary = float(functional.binary_cross_entropy_with_logits(z, t))
    assert expected_loss("binary_cross_entropy_with_logits", 3) == pytest.approx(binary, rel=1e-5)
    assert expected_loss("nll_loss", 7) == pytest.approx(log(7))
    assert expected_loss("mse_loss", 7) is None
    assert initial_loss(1.0, name="mse_loss", num_classes=7).status == "SKIP"


@pytest.mark.parametrize("rows", [1, 32])
def test_a_sum_is_as_many_times_larger(rows):
    options = {"name": "cross_entropy", "num_classes": 10, "rows": rows, "reduction": "sum"}
    assert initial_loss(rows * log(10), **options).status == "PASS"
    assert initial_loss(rows * log(10) * 11, **options).status == "FAIL"


@pytest.mark.parametrize(
    ("factor", "status"),
    [(0.3, "PASS"), (1.6, "PASS"), (2.9, "PASS"), (3.3, "INFO"), (9.9, "INFO"), (10.1, "FAIL")],
)
def test_the_bounds(factor, status):
    found = initial_loss(factor * log(10), name="cross_entropy", num_classes=10)
    assert found.status == status
    assert found.evidence["expected"] == pytest.approx(log(10))
    trained = initial_loss(factor * log(10), name="cross_entropy", num_classes=10, trained=True)
    assert trained.status in ("PASS", "INFO")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_fails(value):
    assert initial_loss(value, name="mse_loss", num_classes=2).status == "FAIL"


def digits(samples=128):
    data = load_digits()
    return torch.from_numpy(data.data[:samples]).float() / 16, torch.from_numpy(data.target[:samples])


def test_the_score_is_that_of_all_permutations():
    """T of the check against the mean and deviation over explicit permutations."""
    torch.manual_seed(0)
    z, y = torch.randn(64, 4) + torch.eye(4)[torch.arange(64) % 4], torch.arange(64) % 4
    of_labels = z[:, y].diagonal().sum()
    drawn = torch.stack([z[torch.arange(64), y[torch.randperm(64)]].sum() for _ in range(20_000)])
    expected = (of_labels - drawn.mean()) / drawn.std()
    assert label_independence(z, y).evidence["z_samples"] == pytest.approx(float(expected), rel=0.03)


def test_fresh_nets_never_alarm_and_those_with_a_leak_do():
    x, y = digits()
    for seed in range(60):
        torch.manual_seed(seed)
        width, depth = (16, 64, 256)[seed % 3], 1 + seed % 4
        layers = [nn.Linear(64, width), nn.ReLU()]
        for _ in range(depth - 1):
            layers += [
                nn.Linear(width, width),
                nn.BatchNorm1d(width) if seed % 2 else nn.Identity(),
                nn.ReLU(),
            ]
        z = nn.Sequential(*layers, nn.Linear(width, 10))(x).detach()
        found = label_independence(z, y)
        assert found.status == "PASS"
        assert min(abs(found.evidence["z_samples"]), abs(found.evidence["z_classes"])) < 4
        leak = z + 3 * z.std() * functional.one_hot(y, 10)
        assert label_independence(leak, y).causes == ("label-leak",)
        assert label_independence(leak, y, trained=True).status == "PASS"


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_050", "test_vit", "test_convnext", "test_efficientnet"]
)
def test_fresh_nets_of_timm_do_not_know_the_labels(name):
    x, y = digits(64)
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=10, in_chans=1)
    images = functional.interpolate(x.view(-1, 1, 8, 8), size=160 if name.startswith("test") else 32)
    with torch.no_grad():
        z = net(images)
    assert label_independence(z, y).status == "PASS"
    assert (
        initial_loss(float(functional.cross_entropy(z, y)), name="cross_entropy", num_classes=10).status
        == "PASS"
    )


def test_too_little_to_tell():
    assert label_independence(torch.randn(63, 3), torch.arange(63) % 3).status == "SKIP"
    assert label_independence(torch.randn(64, 3), torch.zeros(64).long()).status == "SKIP"
    assert label_independence(torch.zeros(64, 3), torch.arange(64) % 3).status == "PASS"
