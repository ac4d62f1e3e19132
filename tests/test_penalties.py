import pytest
import torch
from torch import nn

from lightning_recipes.penalties import add_elastic_net_gradient, elastic_net, limit_norms


def weights(dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(4, 3, dtype=dtype), torch.randn(2, 3, 3, 3, dtype=dtype)]


def test_the_penalty_is_the_sum_of_its_parts():
    values = torch.cat([weight.flatten() for weight in weights()]).tolist()
    expected = 0.3 * sum(abs(v) for v in values) + 0.7 * sum(v * v for v in values)
    assert float(elastic_net(weights(), l1=0.3, l2=0.7)) == pytest.approx(expected, rel=1e-6)


def test_narrow_weights_are_summed_in_float32():
    many = [torch.full((1000, 1000), 0.1, dtype=torch.float16)]  # in float16 the sum would overflow
    assert float(elastic_net(many, l1=1.0, l2=0.0)) == pytest.approx(1e6 * float(many[0][0, 0]), rel=1e-5)


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
@pytest.mark.parametrize("scale", [None, 8.0])
def test_the_gradient_is_autograd_s(l1, l2, scale):
    leaves = [weight.requires_grad_() for weight in weights()]
    penalty = sum(l1 * w.abs().sum() + l2 * w.square().sum() for w in leaves)
    expected = torch.autograd.grad(penalty, leaves)
    gradients = [torch.ones_like(w) for w in leaves]
    factor = None if scale is None else torch.tensor(scale)
    add_elastic_net_gradient(leaves, gradients, l1=l1, l2=l2, scale=factor)
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, 1 + (scale or 1) * wanted)


@pytest.mark.parametrize("shape", [(5, 7), (5, 2, 3), (5, 2, 3, 3)])
def test_a_bound_on_the_norm_is_torch_renorm(shape):
    torch.manual_seed(1)
    weight = torch.randn(shape)
    expected = torch.renorm(weight, 2, 0, 2.0)
    limit_norms(weight, 2.0)
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)  # torch divides by the norm + 1e-7


def test_rows_within_the_bound_stay_to_the_bit():
    torch.manual_seed(2)
    weight = torch.randn(50, 9)
    before, norms = weight.clone(), weight.norm(dim=1)
    limit_norms(weight, 3.0)
    inside = norms <= 3.0
    assert 10 < int(inside.sum()) < 40
    assert torch.equal(weight[inside], before[inside])
    torch.testing.assert_close(weight[~inside].norm(dim=1), torch.full((int((~inside).sum()),), 3.0))


def test_zero_rows_stay_zero():
    weight = torch.zeros(2, 3)
    limit_norms(weight, 1.0)
    assert torch.equal(weight, torch.zeros(2, 3))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_units_of_a_transposed_convolution_are_what_the_output_depends_on(groups):
    torch.manual_seed(3)
    layer = nn.ConvTranspose2d(4, 6, 2, groups=groups, bias=False)
    out = layer(torch.rand(1, 4, 3, 3) + 1)  # (1, 6, 4, 4)
    parts = [torch.autograd.grad(out[0, unit].sum(), layer.weight, retain_graph=True)[0] for unit in range(6)]
    expected = layer.weight.detach().clone()
    for part in parts:
        own = part != 0
        norm = expected[own].norm()
        expected[own] *= min(1.0, float(0.6 / norm))
    limit_norms(layer.weight, 0.6, transposed=True, groups=groups)
    assert not torch.equal(expected, torch.renorm(expected, 2, 0, 0.6))  # rows are not the units
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_narrow_weights_are_bounded_by_norms_in_float32():
    weight = torch.full((1, 100), 100.0, dtype=torch.float16)  # its square sum overflows in float16
    limit_norms(weight, 10.0)
    torch.testing.assert_close(weight, torch.ones(1, 100, dtype=torch.float16))
