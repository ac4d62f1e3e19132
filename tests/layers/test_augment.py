"""Each batch transform against torchvision's, sample by sample."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from lightning_recipes.layers import augment


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)


def test_shift_flip(images):
    dy, dx = torch.tensor([0, 1, 2, 3, 4, 2]), torch.tensor([4, 3, 2, 1, 0, 2])
    flip = torch.tensor([True, False, True, False, True, False])
    out = augment.shift_flip(images, dy, dx, flip, pad=2)
    for i, image in enumerate(images):
        cropped = F.crop(F.pad(image, [2]), int(dy[i]), int(dx[i]), 16, 16)
        assert torch.equal(out[i], F.horizontal_flip(cropped) if flip[i] else cropped)


def test_shift_flip_by_nothing_is_the_identity(images):
    none = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(augment.shift_flip(images, none, none, none.bool(), pad=0), images)


def test_warp_rotates_as_torchvision(images):
    angles = torch.tensor([0.0, 10.0, -20.0, 45.0, 90.0, 7.0])
    still = torch.zeros(6)
    theta = augment.affine(torch.ones(6, 2), torch.zeros(6, 2), angles * math.pi / 180, still, still.bool())
    out = augment.warp(images.float(), theta)
    for image, angle, turned in zip(images.float(), angles, out, strict=True):
        expected = F.affine(image, -float(angle), [0, 0], 1.0, [0.0, 0.0], InterpolationMode.BILINEAR)
        inside = F.affine(
            torch.ones_like(image), -float(angle), [0, 0], 1.0, [0.0, 0.0], InterpolationMode.BILINEAR
        )
        torch.testing.assert_close(turned * (inside > 0.99), expected * (inside > 0.99), rtol=1e-4, atol=0.05)


def test_warp_crops_as_torchvision_resizes(images):
    # the top left quarter, enlarged to the whole, without antialiasing, which enlarging does not need
    theta = augment.affine(
        torch.full((6, 2), 0.5),
        torch.full((6, 2), -0.5),
        torch.zeros(6),
        torch.zeros(6),
        torch.zeros(6).bool(),
    )
    out = augment.warp(images.float(), theta, "border")
    expected = F.resized_crop(images.float(), 0, 0, 8, 8, [16, 16], antialias=False)
    torch.testing.assert_close(out[..., :15, :15], expected[..., :15, :15], rtol=1e-4, atol=0.05)


def test_warp_flips(images):
    theta = augment.affine(
        torch.ones(6, 2), torch.zeros(6, 2), torch.zeros(6), torch.zeros(6), torch.ones(6).bool()
    )
    torch.testing.assert_close(
        augment.warp(images.float(), theta), images.float().flip(-1), rtol=1e-4, atol=0.05
    )


def test_warp_shears_rows_against_each_other():
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8] = 255.0  # an upright line
    angle = torch.tensor([math.atan(0.5)])
    theta = augment.affine(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1), angle, torch.zeros(1).bool())
    peaks = augment.warp(image, theta)[0, 0].argmax(1)
    assert int(peaks[2] - peaks[12]) == 5  # half a pixel a row, over ten rows


@pytest.mark.parametrize(
    ("which", "theirs"), [(0, F.adjust_brightness), (1, F.adjust_contrast), (2, F.adjust_saturation)]
)
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("channels", [1, 3])
def test_jitter(images, which, theirs, factor, channels):
    images = images[:, :channels].float()
    factors = [torch.ones(6), torch.ones(6), torch.ones(6)]
    factors[which] = torch.tensor([factor] * 3 + [1.0] * 3)
    out = augment.jitter(images, *factors)
    expected = torch.stack([theirs(image / 255, factor) * 255 for image in images[:3]])
    torch.testing.assert_close(out[:3], expected, rtol=1e-3, atol=0.1)
    torch.testing.assert_close(out[3:], images[3:], rtol=1e-5, atol=1e-3)


def test_erase(images):
    top, left = torch.tensor([0, 3, 15, 2, 5, 0]), torch.tensor([0, 4, 15, 9, 5, 0])
    height, width = torch.tensor([16, 2, 1, 5, 0, 1]), torch.tensor([16, 3, 1, 7, 4, 16])
    out = augment.erase(images, top, left, height, width)
    for i, image in enumerate(images):
        box = [int(v[i]) for v in (top, left, height, width)]
        assert torch.equal(out[i], F.erase(image, *box, torch.zeros(1, dtype=torch.uint8)))
