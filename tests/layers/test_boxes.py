"""Each rectangle against torchvision's, sample by sample, whichever way it is made."""

import pytest
import torch
from torchvision.transforms.v2 import RandomShortestSize
from torchvision.transforms.v2 import functional as F

from lightning_recipes.layers import boxes
from lightning_recipes.utils.errors import UserError


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)


def test_shift_flip(images, way):
    dy, dx = torch.tensor([0, 1, 2, 3, 4, 2]), torch.tensor([4, 3, 2, 1, 0, 2])
    flip = torch.tensor([True, False, True, False, True, False])
    out = boxes.shift_flip(images, dy, dx, flip, pad=2)
    for i, image in enumerate(images):
        cropped = F.crop(F.pad(image, [2]), int(dy[i]), int(dx[i]), 16, 16)
        assert torch.equal(out[i], F.horizontal_flip(cropped) if flip[i] else cropped)


def test_shift_flip_by_nothing_is_the_identity(images, way):
    none = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(boxes.shift_flip(images, none, none, none.bool(), pad=0), images)


def test_erase(images, way):
    top, left = torch.tensor([0, 3, 15, 2, 5, 0]), torch.tensor([0, 4, 15, 9, 5, 0])
    height, width = torch.tensor([16, 2, 1, 5, 0, 1]), torch.tensor([16, 3, 1, 7, 4, 16])
    out = boxes.erase(images, top, left, height, width)
    for i, image in enumerate(images):
        box = [int(v[i]) for v in (top, left, height, width)]
        assert torch.equal(out[i], F.erase(image, *box, torch.zeros(1, dtype=torch.uint8)))


def test_a_crop_of_another_size(images, way):
    dy, dx = torch.tensor([0, 1, 2, 3, 4, 10]), torch.tensor([8, 3, 2, 1, 0, 2])
    flip = torch.tensor([True, False, True, False, True, False])
    out = boxes.shift_flip(images, dy, dx, flip, pad=1, size=(8, 10))
    for i, image in enumerate(images):
        cropped = F.crop(F.pad(image, [1]), int(dy[i]), int(dx[i]), 8, 10)
        assert torch.equal(out[i], F.horizontal_flip(cropped) if flip[i] else cropped)


def test_an_image_smaller_than_its_crop_is_refused(images):
    none = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(
        UserError, match=r"crop of 20 × 16 pixels, got 18 × 18\. Take a smaller crop, or pad it"
    ):
        boxes.shift_flip(images, none, none, none.bool(), pad=1, size=(20, 16))
    with pytest.raises(
        UserError, match=r"crop of 16 × 16 pixels, got 12 × 15\. Take a smaller crop, or resize"
    ):
        boxes.scale_crop(torch.zeros(3, 8, 10), 12, 0, 0, 16)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (9, 7), (16, 16)])
def test_scale_crop_is_resize_and_crop(shape):
    torch.manual_seed(1)
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    out = boxes.scale_crop(image, 18, 1, 2, 16)
    resized = RandomShortestSize(18)(image)
    assert torch.equal(out, resized[:, 1:17, 2:18])


def test_cutout_cuts_an_exact_square_and_loses_what_lies_outside(way):
    row, column = torch.tensor([8, 8, 0, 15, 3, 9]), torch.tensor([8, 5, 0, 15, 14, 2])
    side = torch.tensor([4, 5, 6, 6, 5, 0])
    out = boxes.cutout(torch.ones(6, 2, 16, 16), row, column, side)
    cut = (out == 0).sum((1, 2, 3)) // 2
    assert cut.tolist() == [16, 25, 9, 16, 20, 0]  # s² inside; at (0, 0) a quarter, at (15, 15) 4 of 6 rows
    for image, y, x, s in zip(out, row.tolist(), column.tolist(), side.tolist(), strict=True):
        top, left = max(y - s // 2, 0), max(x - s // 2, 0)
        height, width = min(y - s // 2 + s, 16) - top, min(x - s // 2 + s, 16) - left
        assert torch.equal(image, F.erase(torch.ones(2, 16, 16), top, left, height, width, torch.zeros(1)))


@pytest.mark.parametrize("size", [(16, 16), (4, 6)])
def test_a_padding_as_large_as_the_image_may_leave_nothing_of_it(images, way, size):
    dy = torch.tensor([0, 32, 16, 1, 31, 10])
    for dx in (dy, dy.flip(0)):
        for flip in (torch.ones(6).bool(), torch.zeros(6).bool()):
            out = boxes.shift_flip(images, dy, dx, flip, pad=16, size=size)
            for i, image in enumerate(images):
                cropped = F.crop(F.pad(image, [16]), int(dy[i]), int(dx[i]), *size)
                assert torch.equal(out[i], F.horizontal_flip(cropped) if flip[i] else cropped)


def test_large_samples_on_a_cpu_are_sliced():
    assert boxes.slices_pay(torch.empty(2, 3, 224, 224))
    assert not boxes.slices_pay(torch.empty(256, 3, 32, 32))
    assert not boxes.slices_pay(torch.empty(2, 3, 224, 224, device="meta"))
