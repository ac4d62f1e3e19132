import math

import numpy as np
import pytest
import timm
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from lightning_recipes.transfer.distance import domain_distance, hellinger

from ..contract.test_contract import hooks
from ..contract.toys import same


@pytest.mark.parametrize(
    "moments", [(0, 1, 0, 1), (0, 1, 2, 1), (1, 0.5, -1, 3), (0, 0.01, 0.1, 4), (5, 2, 5, 9)]
)
def test_hellinger_is_the_integral(moments):
    mean, variance, other_mean, other_variance = moments
    p, q = norm(mean, math.sqrt(variance)), norm(other_mean, math.sqrt(other_variance))
    overlap, _ = quad(lambda x: math.sqrt(p.pdf(x) * q.pdf(x)), -40, 40, points=[mean, other_mean], limit=500)
    found = hellinger(*(torch.tensor(x, dtype=torch.float64) for x in moments))
    assert float(found) == pytest.approx(1 - overlap, abs=1e-7)


def test_hellinger_is_symmetric_and_lies_between_0_and_1():
    generator = torch.Generator().manual_seed(0)
    mean, other = torch.randn(2, 1000, generator=generator) * 5
    variance, spread = torch.rand(2, 1000, generator=generator) * 9 + 0.01
    found = hellinger(mean, variance, other, spread)
    torch.testing.assert_close(found, hellinger(other, spread, mean, variance))
    assert (found > 0).all()
    assert (found <= 1).all()


class Net(nn.Module):
    """Two layers with statistics, over positions and over features."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm1d(3)

    def forward(self, images):
        return self.second(self.first(images).mean((2, 3)))


def data(size=48, shift=0.0):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 3, 4, 4, generator=generator) * torch.tensor([1.0, 2, 5])[:, None, None] + shift


def batches(images, size=48):
    return [(part, torch.zeros(len(part))) for part in images.split(size)]


def pretrained(images):
    """Return a net whose statistics are exactly those of the images."""
    net = Net().eval()
    with torch.no_grad():
        for layer, values in ((net.first, images.transpose(0, 1).flatten(1)), (net.second, None)):
            if values is None:
                values = net.first(images).mean((2, 3)).T
            layer.running_mean.copy_(values.mean(1))
            layer.running_var.copy_(values.var(1, correction=0))
    return net.train()


def test_the_images_of_pretraining_are_at_no_distance():
    images = data()
    # float32 statistics against float64 sums
    assert domain_distance(pretrained(images), batches(images)) == pytest.approx(0, abs=1e-6)


def test_the_distance_by_hand():
    net, shifted = pretrained(data()), data(shift=2.0)
    with torch.no_grad():
        second = net.eval().first(shifted).mean((2, 3))
    expected = []
    for layer, values in ((net.first, shifted.transpose(0, 1).flatten(1)), (net.second, second.T)):
        mean, variance = values.double().mean(1), values.double().var(1, correction=0) + layer.eps
        expected.append(
            hellinger(
                mean, variance, layer.running_mean.double(), layer.running_var.double() + layer.eps
            ).mean()
        )
    found = domain_distance(net.train(), batches(shifted))
    assert found == pytest.approx(float(torch.stack(expected).mean()), rel=1e-6)
    assert found > 0.05


def test_the_further_the_images_the_greater_the_distance():
    net = pretrained(data())
    found = [domain_distance(net, batches(data(shift=shift))) for shift in (0.0, 0.5, 1.0, 2.0, 4.0, 100.0)]
    assert found == sorted(found)
    assert 0.9 < found[-1] <= 1


@pytest.mark.parametrize("size", [1, 7, 48])
def test_the_size_of_the_batches_does_not_matter(size):
    net, images = pretrained(data()), data(shift=1.0)
    assert domain_distance(net, batches(images, size)) == pytest.approx(
        domain_distance(net, batches(images)), rel=1e-5
    )


def test_a_channel_that_is_always_0_is_no_difference():
    net = nn.Sequential(nn.BatchNorm2d(1))
    nn.init.zeros_(net[0].running_var)
    assert domain_distance(net, batches(torch.zeros(4, 1, 2, 2))) == 0


def test_large_means_are_not_lost_in_rounding():
    images = data() + 10_000
    assert domain_distance(pretrained(images), batches(images)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("net", [nn.Linear(4, 1), nn.BatchNorm2d(3, track_running_stats=False)])
def test_without_running_statistics_there_is_no_distance(net):
    assert domain_distance(net, []) is None


def test_of_no_images_there_is_none():
    assert domain_distance(Net(), []) is None


@pytest.mark.parametrize("broken", [False, True])
def test_nothing_is_left_behind(broken):
    net = timm.create_model("test_resnet", num_classes=0)
    net.layer1.eval()
    modes = [part.training for part in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = [(torch.randn(2, 3, 32, 32), torch.zeros(2))]
    if broken:
        given.append((torch.randn(2, 5, 32, 32), torch.zeros(2)))
        with pytest.raises(RuntimeError):
            domain_distance(net, given)
    else:
        assert 0 < domain_distance(net, given) < 1
    assert hooks(net) == 0
    assert [part.training for part in net.modules()] == modes
    assert same(dict(net.state_dict()), before)


def test_a_layer_that_is_never_called_does_not_count():
    images = data()
    net = pretrained(images)
    net.unused = nn.BatchNorm2d(7)
    assert np.isclose(domain_distance(net, batches(images)), 0, atol=1e-6)
