from math import nan

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_recipes.checks.batch_norm_gap import batch_norm_gap


def trained(momentum, steps, batch=32):
    """Return the losses with running statistics and with the batch's own, of a net that was trained."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32, momentum=momentum), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    x = 5 * torch.randn(512, 8) + 20
    y = (x - 20)[:, :3].argmax(1)
    for step in range(steps):
        part = slice(step * batch % 512, step * batch % 512 + batch)
        optimizer.zero_grad()
        functional.cross_entropy(net(x[part]), y[part]).backward()
        optimizer.step()
    losses = {}
    with torch.no_grad():
        for training in (False, True):
            net.train(training)
            losses[training] = [
                float(functional.cross_entropy(net(x[i : i + 64]), y[i : i + 64])) for i in range(0, 384, 64)
            ]
    return losses[False], losses[True]


def test_running_statistics():
    assert batch_norm_gap(*trained(0.1, 150), steps=150).status == "PASS"
    found = batch_norm_gap(*trained(1e-5, 150), steps=150)  # averages that never arrive
    assert (found.status, found.causes) == ("WARN", ("batch-norm-statistics",))
    assert found.evidence["z"] > 5
    assert batch_norm_gap(*trained(1e-5, 40), steps=40).status in ("INFO", "PASS")


@pytest.mark.parametrize(
    ("evaluated", "batch_wise", "status"),
    [
        ([1.0], [1.0], "SKIP"),
        ([nan, 1.0], [1.0, 1.0], "SKIP"),
        ([3e-4, 4e-4, 3e-4], [5e-5, 4e-5, 5e-5], "PASS"),
        ([0.5, 0.5, 0.5], [5.0, 5.0, 5.0], "PASS"),
        ([9.0, 0.1, 0.2], [0.5, 0.5, 0.5], "PASS"),
        ([9.0, 9.1, 9.2], [0.5, 0.5, 0.5], "WARN"),
    ],
)
def test_the_gap_must_be_large_in_all_batches(evaluated, batch_wise, status):
    assert batch_norm_gap(evaluated, batch_wise, steps=100).status == status
