import pytest
import timm
import torch
from torch import nn

from lightning_recipes.checks.batch_mixing import batch_mixing, moved_rows


class Mixed(nn.Module):
    """A `view` that crosses the batch."""

    def forward(self, x):
        return x.permute(1, 0, 2).reshape(x.shape)


def exchanged(net, x, dtype):
    net, x = net.to(dtype).eval(), x.to(dtype)
    other = x.clone()
    other[1] = other[1].flip(-1) * 1.5 + 0.3
    with torch.no_grad():
        return moved_rows(net(x), net(other), 1)


def judged(net, x):
    single = exchanged(net, x, torch.float32)
    return batch_mixing(single, exchanged(net, x, torch.float64) if single > 1e-4 else None)


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_convnext"])
def test_nets_of_timm_keep_samples_apart(name):
    torch.manual_seed(0)
    size = 160 if name.startswith("test") else 64
    assert judged(timm.create_model(name, num_classes=10), torch.randn(4, 3, size, size)).status == "PASS"


def test_a_view_across_the_batch_is_seen():
    torch.manual_seed(0)
    net = nn.Sequential(Mixed(), nn.Flatten(), nn.Linear(20, 3))
    found = judged(net, torch.randn(8, 4, 5))
    assert (found.status, found.causes) == ("FAIL", ("batch-mixing",))


def test_attention_over_the_batch_is_seen():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=False)
    assert judged(layer, torch.randn(6, 5, 8)).status == "FAIL"
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert judged(layer, torch.randn(6, 5, 8)).status == "PASS"


def test_batch_norm_mixes_in_training_only():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
    assert judged(net, torch.randn(8, 5)).status == "PASS"
    frozen = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5, track_running_stats=False))
    assert judged(frozen, torch.randn(8, 5)).status == "FAIL"


def test_the_change_is_relative_and_leaves_the_sample_out():
    before = torch.randn(5, 3)
    after = before.clone()
    after[2] += 100
    assert moved_rows(before, after, 2) == 0
    assert moved_rows(before, after, 1) == pytest.approx(100 / float(before.abs().mean()), rel=1e-5)
    assert moved_rows(1e6 * before, 1e6 * after, 1) == pytest.approx(moved_rows(before, after, 1), rel=1e-5)


@pytest.mark.parametrize(
    ("single", "double", "status"),
    [
        (0.0, None, "PASS"),
        (1e-3, 1e-12, "PASS"),
        (1e-3, None, "PASS"),
        (1e-3, 1e-6, "FAIL"),
        (1e-5, 1e-5, "PASS"),
    ],
)
def test_float64_has_the_last_word(single, double, status):
    assert batch_mixing(single, double).status == status
