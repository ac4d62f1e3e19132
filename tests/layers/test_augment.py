"""Each batch transform against torchvision's, sample by sample."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import ElasticTransform
from torchvision.transforms.v2 import functional as F

from lightning_recipes.layers import augment


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)


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


def test_warp_moves_by_whole_pixels(images):
    still, ones = torch.zeros(6), torch.ones(6, 2)
    shift = torch.tensor([[0, 0], [1, 2], [-3, 0], [0, 5], [-2, -2], [16, 0]])  # down and across
    theta = augment.affine(ones, 0 * ones, still, still, still.bool(), shift * (2 / 16))
    out = augment.warp(images.float(), theta)
    for image, (down, across), moved in zip(images.float(), shift.tolist(), out, strict=True):
        expected = F.affine(image, 0.0, [across, down], 1.0, [0.0, 0.0])
        torch.testing.assert_close(moved, expected, rtol=0, atol=0.02)  # of 255: float32 coordinates


def test_warp_turns_and_then_moves_as_torchvision(images):
    angle = torch.full((6,), 30.0)
    shift = torch.tensor([[3.0, -2.0]]).expand(6, 2)
    ones, still = torch.ones(6, 2), torch.zeros(6)
    theta = augment.affine(ones, 0 * ones, angle * math.pi / 180, still, still.bool(), shift * (2 / 16))
    smooth = F.gaussian_blur(images.float(), [5, 5])  # torchvision counts pixels with a hard mask at the edge
    out = augment.warp(smooth, theta)
    expected = F.affine(smooth, -30.0, [-2, 3], 1.0, [0.0, 0.0], InterpolationMode.BILINEAR)
    inside = F.affine(torch.ones(1, 16, 16), -30.0, [-2, 3], 1.0, [0.0, 0.0], InterpolationMode.BILINEAR)
    torch.testing.assert_close(out * (inside > 0.99), expected * (inside > 0.99), rtol=1e-4, atol=0.05)


@pytest.mark.parametrize(("alpha", "sigma", "shape"), [(40.0, 2.0, (20, 20)), (90.0, 3.1, (28, 17))])
def test_elastic_is_torchvisions(alpha, sigma, shape, monkeypatch):
    torch.manual_seed(2)
    images = torch.rand(3, 2, *shape)
    noise = torch.rand(3, 2, *shape) * 2 - 1
    out = augment.elastic(images, noise, alpha, sigma)
    theirs = ElasticTransform(alpha, sigma)
    for i, image in enumerate(images):
        both = iter([(noise[i, 0] + 1) / 2, (noise[i, 1] + 1) / 2])
        monkeypatch.setattr(torch, "rand", lambda *size, both=both: next(both).view(size))
        params = theirs.make_params([image])
        inside = theirs.transform(torch.ones_like(image), params) > 0.9999  # it darkens the edge twice
        assert 0.4 < float(inside.float().mean()) < 1
        expected = theirs.transform(image, params)
        torch.testing.assert_close(out[i] * inside, expected * inside, rtol=0, atol=1e-4)
    assert float((out - images).abs().mean()) > 0.02  # it did something
    monkeypatch.undo()
    torch.testing.assert_close(augment.elastic(images, noise, 0.0, sigma), images, rtol=0, atol=1e-4)


def test_the_axes_are_numpys_principal_components():
    pixels = np.random.RandomState(0).rand(500, 3) @ np.array(
        [[0.5, 0.4, 0.4], [0.1, -0.1, 0.0], [0, 0, 0.2]]
    )
    covariance = np.cov(pixels.T, bias=True)
    axes = augment.lighting_axes(torch.from_numpy(covariance)).double().numpy()
    values = np.linalg.norm(axes, axis=1)  # λ, as the directions have length 1
    np.testing.assert_allclose(values, np.linalg.svd(pixels - pixels.mean(0))[1] ** 2 / 500, rtol=1e-5)
    np.testing.assert_allclose(covariance @ axes.T, axes.T * values, rtol=1e-4, atol=1e-7)
    assert (axes[range(3), np.abs(axes).argmax(1)] > 0).all()  # the sign does not depend on the solver
    np.testing.assert_allclose(augment.lighting_axes(torch.tensor([[0.09]])), [[0.09]], rtol=1e-6)  # grey


def test_lighting_is_the_papers_sum(images):
    torch.manual_seed(0)
    factor = torch.rand(3, 3)
    values, vectors = np.linalg.eigh((factor @ factor.T).double().numpy())
    axes = augment.lighting_axes(factor @ factor.T)
    draws = torch.randn(6, 3) * 0.1
    out = augment.lighting(images, axes, draws)
    for image, alpha, lit in zip(images, draws.flip(1).numpy(), out, strict=True):
        signs = np.sign(
            vectors[np.abs(vectors).argmax(0), range(3)]
        )  # ours is the one with the largest entry > 0
        colour = (vectors * signs) @ (alpha * values)
        expected = image.numpy() + 255 * colour[:, None, None]
        np.testing.assert_allclose(lit.numpy(), expected, rtol=1e-4, atol=1e-2)
    assert torch.equal(augment.lighting(images, axes, 0 * draws), images.float())
