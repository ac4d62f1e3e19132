"""Views of an image against torchvision's, and their mean against the mean."""

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as F

from lightning_recipes.layers.test_time import check_views, crops, pooled_logits, views
from lightning_recipes.utils.errors import UserError

SCALES = {"ten_crop": [256], "multi_scale": [224, 256, 384, 480, 640]}


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def theirs(images, scales, size=32):
    """The views by torchvision, one after another."""
    found = []
    for scale in scales:
        found += F.ten_crop(F.resize(images, [round(size * scale / 224)] * 2, antialias=True), [size, size])
    return found


def each(images, mode, **options):
    """All views, those that count several times as often as they count."""
    return [view for view, weight in views(images, mode, **options) for _ in range(weight)]


@pytest.mark.parametrize(("height", "width", "size"), [(9, 12, (4, 5)), (8, 8, (8, 8)), (7, 9, (4, 4))])
def test_crops_are_torchvision_s(height, width, size):
    images = torch.arange(2 * height * width).view(2, 1, height, width)
    expected = F.ten_crop(images, list(size))  # odd margins among them: the centre is rounded as theirs
    for ours, other in zip(crops(images, size), expected, strict=True):
        assert torch.equal(ours, other)
    for ours, other in zip(crops(images, size, mirror=False), F.five_crop(images, list(size)), strict=True):
        assert torch.equal(ours, other)


@pytest.mark.parametrize("size", [(9, 8), (8, 9)])
def test_a_crop_larger_than_the_image_is_refused(size):
    with pytest.raises(UserError, match=rf"8 × 8 pixels, got {size[0]} × {size[1]}. Resize the images first"):
        next(crops(torch.zeros(1, 1, 8, 8), size))


@pytest.mark.parametrize("size", [32, 8, 3])
@pytest.mark.parametrize("mode", ["ten_crop", "multi_scale"])
def test_views_are_torchvision_s_resized_crops(mode, size):
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    ours, expected = each(images, mode), theirs(images, SCALES[mode], size)
    assert len(ours) == len(expected) == {"ten_crop": 10, "multi_scale": 50}[mode]
    torch.testing.assert_close(torch.stack(ours).mean(0), torch.stack(expected).mean(0))
    for view in expected:  # whatever their order
        assert min(float((view - other).abs().max()) for other in ours) < 1e-5


def test_equal_views_are_made_once(images):
    assert [weight for _, weight in views(images, "multi_scale")] == [5, 5] + [1] * 40
    assert [weight for _, weight in views(images, "multi_scale", mirror=False)] == [5] + [1] * 20


def test_flip_and_none(images):
    (same,) = each(images, "none")
    assert torch.equal(same, images)
    one, other = each(images, "flip")
    assert torch.equal(one, images)
    assert torch.equal(other, F.horizontal_flip(images))


def test_without_mirrored_views_the_others_remain(images):
    for mode in ("ten_crop", "multi_scale"):
        ours = each(images, mode, mirror=False)
        expected = [v for k, v in enumerate(theirs(images, SCALES[mode])) if k % 10 < 5]
        assert len(ours) == len(expected)
        torch.testing.assert_close(torch.stack(ours).mean(0), torch.stack(expected).mean(0))


def test_images_that_are_no_squares_keep_their_sides():
    images = torch.randn(1, 1, 14, 28, generator=torch.Generator().manual_seed(0))
    resized = F.resize(images, [16, 32], antialias=True)
    for ours, other in zip(each(images, "ten_crop"), F.ten_crop(resized, [14, 28]), strict=True):
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays(images, dtype):
    assert all(view.dtype == dtype for view, _ in views(images.to(dtype), "ten_crop"))


def test_views_are_made_one_at_a_time(images):
    """Fifty views of a batch at once would be fifty batches of memory."""
    made = views(images, "multi_scale")
    next(made), next(made)
    view, _ = next(made)
    assert view.untyped_storage().nbytes() < 2 * images.untyped_storage().nbytes()


def test_modes_that_do_not_exist_and_a_flip_where_none_is_allowed(images):
    with pytest.raises(
        UserError, match=r"one of none, flip, ten_crop, multi_scale, got 'tencrop'. Did you mean `ten_crop`"
    ):
        check_views("tencrop")
    with pytest.raises(UserError, match=r"`horizontal_flip: false`: left and right matter. Take `ten_crop`"):
        next(views(images, "flip", mirror=False))
    for mode in ("none", "ten_crop", "multi_scale"):
        check_views(mode, mirror=False)


# The mean


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_mean_is_that_of_the_probabilities(multi_label):
    logits = 5 * torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1, 5, 2, 1])
    likely = (lambda x: x.sigmoid()) if multi_label else (lambda x: x.softmax(-1))
    expected = (weights.view(4, 1, 1) * likely(logits)).sum(0) / 9
    pooled = pooled_logits(zip(logits, weights.tolist(), strict=True), multi_label=multi_label)
    torch.testing.assert_close(likely(pooled), expected)
    if not multi_label:
        torch.testing.assert_close(pooled.exp().sum(1), torch.ones(6))


@pytest.mark.parametrize("multi_label", [False, True])
def test_of_one_view_the_probabilities_are_its_own(multi_label):
    logits = torch.tensor([[3.0, -2.0, 0.5]])
    pooled = pooled_logits([(logits, 1)], multi_label=multi_label)
    expected = logits if multi_label else logits.log_softmax(1)
    torch.testing.assert_close(pooled, expected)


def test_sure_and_wrong_views_underflow_nowhere():
    sure = torch.tensor([[0.0, 300.0]])  # e^-300 is 0 in float32
    pooled = pooled_logits([(sure, 1), (sure, 1)])
    torch.testing.assert_close(nn.functional.cross_entropy(pooled, torch.tensor([0])), torch.tensor(300.0))
    torch.testing.assert_close(pooled_logits([(sure, 1), (sure, 1)], multi_label=True), sure)


def test_half_precision_logits_are_averaged_in_float32():
    logits = torch.randn(10, 4, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    pooled = pooled_logits((each, 1) for each in logits)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled.softmax(1), logits.float().softmax(2).mean(0))
