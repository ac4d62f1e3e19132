import pytest
import torch
from torch import nn, optim

from lightning_recipes.checks.dropout import dropout
from lightning_recipes.checks.label_smoothing import label_smoothing
from lightning_recipes.checks.optimizer_settings import optimizer_settings

WEIGHTS = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("optimizer", "decoupled", "options"),
    [
        (optim.AdamW, True, {"lr": 1e-3, "weight_decay": 0.3}),
        (optim.AdamW, True, {"lr": 1e-4, "weight_decay": 1.0}),
        (optim.AdamW, True, {"lr": 3e-4, "weight_decay": 10.0, "betas": (0.95, 0.98)}),
        (optim.SGD, False, {"lr": 0.1, "weight_decay": 5e-3, "momentum": 0.9, "nesterov": True}),
        (optim.SGD, False, {"lr": 3.2, "weight_decay": 1e-4, "momentum": 0.9}),
        (optim.SGD, False, {"lr": 9.8, "weight_decay": 5e-5, "momentum": 0.9}),
        (optim.Adam, False, {"lr": 1e-3, "weight_decay": 1e-4}),
        (optim.RMSprop, False, {"lr": 0.06, "eps": 1.0, "momentum": 0.9, "weight_decay": 1e-5}),
    ],
)
def test_recipes_pass(optimizer, decoupled, options):
    groups = optimizer(WEIGHTS.parameters(), **options).param_groups
    assert [finding.status for finding in optimizer_settings(groups, decoupled=decoupled)] == ["PASS"]


@pytest.mark.parametrize(
    ("optimizer", "decoupled", "options", "cause"),
    [
        (optim.AdamW, True, {"lr": 1e-3, "weight_decay": 50}, "weight-decay-too-high"),
        (optim.AdamW, True, {"lr": 1e-4, "weight_decay": 50}, "weight-decay-too-high"),
        (optim.SGD, False, {"lr": 0.1, "weight_decay": 50}, "weight-decay-too-high"),
        (optim.SGD, False, {"lr": 0.1, "weight_decay": 0.05, "momentum": 0.9}, "weight-decay-too-high"),
        (optim.Adam, False, {"lr": 1e-4, "weight_decay": 1.0}, "weight-decay-too-high"),
        (optim.SGD, False, {"lr": 0.1, "momentum": 0.999}, "momentum-too-high"),
        (optim.Adam, False, {"lr": 1e-3, "betas": (0.999, 0.999)}, "momentum-too-high"),
        (optim.Adam, False, {"lr": 1e-3, "maximize": True}, "loss-sign-flipped"),
        (optim.Adam, False, {"lr": 0.0}, "learning-rate-too-low"),
        (optim.Adam, False, {"lr": 1e-3, "eps": 1.0}, "optimizer-settings"),
    ],
)
def test_faults_are_named(optimizer, decoupled, options, cause):
    groups = optimizer(WEIGHTS.parameters(), **options).param_groups
    assert [finding.causes for finding in optimizer_settings(groups, decoupled=decoupled)] == [(cause,)]


@pytest.mark.parametrize(
    ("optimizer", "decoupled", "options"),
    [
        (optim.AdamW, True, {"lr": 0.2, "weight_decay": 0.05}),
        (optim.SGD, False, {"lr": 500.0, "weight_decay": 0.05}),
    ],
)
def test_a_rate_that_is_further_out_than_the_decay_comes_first(optimizer, decoupled, options):
    groups = optimizer(WEIGHTS.parameters(), **options).param_groups
    (finding,) = optimizer_settings(groups, decoupled=decoupled)
    assert finding.causes == ("learning-rate-too-high", "weight-decay-too-high")


def test_one_group_may_rest():
    groups = [{"lr": 0.0}, {"lr": 0.1}]
    assert optimizer_settings(groups, decoupled=False)[0].status == "PASS"


def test_dropout():
    assert dropout({"a": 0.1, "b": 0.95}).evidence["rates"] == {"b": 0.95}
    assert dropout({"a": 0.8}).status == "PASS"
    assert dropout({}).status == "PASS"


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_label_smoothing_found_in_targets(classes):
    torch.manual_seed(classes)
    hard = torch.eye(classes)[torch.arange(64) % classes]
    assert label_smoothing(0.9 / classes + 0.1 * hard).status == "WARN"
    assert label_smoothing(0.9 / classes + 0.1 * hard).evidence["label_smoothing"] == pytest.approx(0.9)
    for weight in (0.5, 0.9):
        mixed = weight * hard + (1 - weight) * hard[torch.randperm(64)]
        assert label_smoothing(0.1 / classes + 0.9 * mixed).status == "PASS"
    assert label_smoothing(hard[:4]).status == "SKIP"
    assert label_smoothing(0.1).status == "PASS"
