import copy
import re

import numpy as np
import pytest
import timm
import torch
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from lightning_recipes.layers.fractional_pool import FractionalPool, even_points, swap_max_pools
from lightning_recipes.utils.errors import UserError


def images(side=16, batch=3, channels=2):
    generator = torch.Generator().manual_seed(side)
    return torch.randn(batch, channels, side, side, generator=generator)


def starts(size, count, kernel, u):
    """Return where the regions begin along an axis."""
    step = (size - kernel) / (count - 1)
    inner = [int((number + u) * step) - int(u * step) for number in range(count - 1)]
    return [*inner, size - kernel]


def pooled(image, count, kernel, u):
    """Return the maxima over regions, in NumPy; torch takes the width's draw first."""
    columns = starts(image.shape[1], count, kernel, u[0])
    rows = starts(image.shape[0], count, kernel, u[1])
    return np.array([[image[y : y + kernel, x : x + kernel].max() for x in columns] for y in rows])


@pytest.mark.parametrize(("kernel", "ratio"), [(2, 2**-0.5), (3, 0.6), (2, 0.5)])
def test_training_is_torch_s_own(kernel, ratio):
    ours, theirs = FractionalPool(kernel, ratio=ratio), nn.FractionalMaxPool2d(kernel, output_ratio=ratio)
    torch.manual_seed(0)
    first = ours(images())
    torch.manual_seed(0)
    assert torch.equal(first, theirs(images()))


@pytest.mark.parametrize("side", [9, 16, 23])
@pytest.mark.parametrize("kernel", [2, 3])
def test_fixed_regions_begin_where_the_formula_says(side, kernel):
    pool = FractionalPool(kernel, evaluate="fixed").eval()
    out = pool(images(side))
    expected = pooled(images(side)[1, 1].numpy(), int(side * 2**-0.5), kernel, (0.5, 0.5))
    assert np.array_equal(out[1, 1].numpy(), expected)


def test_an_average_is_one_over_regions_at_even_points():
    pool = FractionalPool(2, evaluate="average", passes=5).eval()
    image = images()[0, 1].numpy()
    expected = np.mean([pooled(image, 11, 2, u) for u in even_points(5).tolist()], axis=0)
    np.testing.assert_allclose(pool(images())[0, 1].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("count", [4, 16, 100])
def test_even_points_are_even(count):
    points = even_points(count)
    assert points.shape == (count, 2)
    assert float(points.min()) > 0
    assert float(points.max()) < 1
    for axis in points.T:
        ordered = axis.sort().values
        level = (torch.arange(count) + 0.5) / count
        assert float((ordered - level).abs().max()) < 1.5 / count**0.5 / 2  # at random some 1 / √count
    products = float((points[:, 0] * points[:, 1]).mean())
    assert products == pytest.approx(0.25, abs=0.5 / count)


@pytest.mark.parametrize("evaluate", ["fixed", "average"])
def test_evaluation_draws_nothing(evaluate):
    pool = FractionalPool(evaluate=evaluate).eval()
    state = torch.get_rng_state()
    first = pool(images())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, pool(images()))
    assert torch.equal(first[1:], pool(images()[1:]))  # an image's output does not depend on its batch


def test_torch_s_own_stays_random_in_evaluation():
    pool = nn.FractionalMaxPool2d(2, output_ratio=2**-0.5).eval()
    assert not torch.equal(pool(images()), pool(images()))


def test_a_window_of_2_that_halves_an_even_side_is_not_random_and_one_of_3_is():
    two, three = FractionalPool(2, ratio=0.5), FractionalPool(3, ratio=0.5)
    assert torch.equal(two(images()), two(images()))
    assert torch.equal(two(images()), nn.functional.max_pool2d(images(), 2))
    assert not torch.equal(three(images()), three(images()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_images_have_the_regions_of_wide_ones(dtype):
    pool = FractionalPool(2, evaluate="fixed")
    narrow = images(200, 1, 1).to(dtype)
    for _ in range(3):
        torch.manual_seed(1)
        wide = pool(narrow.float())
        torch.manual_seed(1)
        out = pool(narrow)
        assert out.dtype == dtype
        assert torch.equal(out.float(), wide)
        pool.eval()


def test_gradients_go_to_the_maxima():
    x = images().requires_grad_()
    out = FractionalPool(2, evaluate="average", passes=4).eval()(x)
    out.sum().backward()
    assert float(x.grad.sum()) == pytest.approx(out.numel(), rel=1e-4)


POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(3, 2),
    nn.MaxPool2d(3, 2, ceil_mode=True),
    nn.MaxPool2d(2, (2, 1)),
    nn.MaxPool2d(2, 2, dilation=2),
    MaxPool2dSame(3, 2),
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("side", [8, 15, 32])
def test_without_a_ratio_the_sizes_stay(pool, side):
    network = nn.Sequential(copy.deepcopy(pool))
    assert swap_max_pools(network, ratio=None) == ["0"]
    assert network(images(side)).shape == pool(images(side)).shape
    assert network[0].kernel_size in (pool.kernel_size, tuple(np.atleast_1d(pool.kernel_size).tolist()))


def test_the_max_pools_of_a_network_are_swapped():
    model = timm.create_model("test_resnet", num_classes=3).eval()
    keys = list(model.state_dict())
    assert swap_max_pools(model) == ["maxpool"]
    assert isinstance(model.maxpool, FractionalPool)
    assert not any(m.training for m in model.modules())
    assert list(model.state_dict()) == keys
    model.train()
    assert not torch.equal(model.forward_features(images(64, 2, 3)), model.forward_features(images(64, 2, 3)))


@pytest.mark.parametrize("evaluate", ["fixed", "average"])
def test_a_network_is_deterministic_in_evaluation(evaluate):
    model = timm.create_model("test_resnet", num_classes=3).eval()
    before = model(images(64, 2, 3))
    swap_max_pools(model, evaluate=evaluate)
    out = model(images(64, 2, 3))
    assert torch.equal(out, model(images(64, 2, 3)))
    assert not torch.equal(out, before)


def test_a_pool_that_does_not_shrink_stays():
    network = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2))
    assert swap_max_pools(network) == ["1"]
    assert type(network[0]) is nn.MaxPool2d


def test_a_pool_under_two_names_is_swapped_under_both():
    pool = nn.MaxPool2d(2)
    network = nn.Sequential(pool, nn.Sequential(pool))
    assert swap_max_pools(network) == ["0", "1.0"]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: nn.Sequential(nn.ReLU()), "Sequential has no `nn.MaxPool2d` that shrinks. Take a backbone"),
        (
            lambda: timm.create_model("test_convnext"),
            "ConvNeXt has no `nn.MaxPool2d` that shrinks; its pooling is head.global_pool (Selec",
        ),
    ],
)
def test_a_network_without_max_pools_is_refused_with_what_it_has(made, says):
    with pytest.raises(UserError, match=re.escape(says)):
        swap_max_pools(made())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ratio": 1.0}, "`ratio` must lie in (0, 1), got 1.0. To keep the sizes, set it to null"),
        ({"ratio": 0.0}, "`ratio` must lie in (0, 1), got 0.0"),
        ({"ratio": None}, "`ratio` is None, and there is no pool in `replaced`"),
        ({"evaluate": "mean"}, "`evaluate` must be fixed or average, got 'mean'"),
        ({"passes": 0}, "`passes` must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(options, says):
    with pytest.raises(UserError, match=re.escape(says)):
        FractionalPool(**options)
