"""The parts of augmentation: their bounds, what switches them, and what they do to a batch."""

import numpy as np
import pytest
import torch

from lightning_recipes.datamodules import Augmentation, DigitsDataModule
from lightning_recipes.datamodules.augmentation import PRESETS
from lightning_recipes.datamodules.batches import BatchPlan, MemoryLoader
from lightning_recipes.datamodules.finish import Finish
from lightning_recipes.datamodules.transforms import batch_transform, sample_transform
from lightning_recipes.preprocessing import Normalization, Preprocessing
from lightning_recipes.utils.errors import UserError

UNIT = Preprocessing(3, 16, 1.0, Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
EACH = {
    "flip": True,
    "shift": 0.25,
    "crop_scale": 0.3,
    "short_side": (1.2, 2.0),
    "rotation": 20,
    "shear": 15,
    "translate": 0.2,
    "elastic": (60.0, 3.0),
    "jitter": 0.4,
    "erase": 1.0,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)


@pytest.mark.parametrize("name", EACH)
def test_each_part_works_alone_in_both_forms(images, name):
    augmentation = Augmentation(**{name: EACH[name]})
    assert list(augmentation.parts) == [name]
    one = sample_transform(augmentation, 16)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        samples = torch.stack([one(image) for image in images])
    batch = batch_transform(augmentation, images, generator())
    for out in (samples, batch):
        assert out.shape == images.shape
        assert not torch.equal(out.to(torch.uint8), images)
    assert samples.dtype == torch.uint8
    assert torch.equal(batch_transform(Augmentation(), images, generator()), images)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"rotation": 181},
            r"`augment.rotation` must lie in \[0, 180\], got 181. To leave it out, set it to 0",
        ),
        ({"shear": -1}, r"`augment.shear` must lie in \[0, 89\], got -1"),
        ({"shift": 1.5}, "got 1.5"),
        (
            {"crop_scale": 0},
            r"`augment.crop_scale` must lie in \[0.01, 1\], got 0. To leave it out, set it to 1",
        ),
        ({"translate": float("nan")}, "`augment.translate` must lie in .* got nan"),
        ({"jitter": 2}, "`augment.jitter` must lie"),
        ({"lighting": -0.1}, "`augment.lighting` must lie"),
        ({"erase": 1.1}, "`augment.erase` must lie"),
        ({"cutout": 2}, "`augment.cutout` must lie"),
        ({"cutout_probability": -1}, "`augment.cutout_probability` must lie"),
        ({"short_side": (0.9, 2)}, r"cannot be smaller than its crop\), got \[0.9, 2\]"),
        ({"short_side": (2, 1.5)}, r"rising .* got \[2, 1.5\]"),
        ({"short_side": (1, float("inf"))}, "two rising"),
        ({"elastic": (-1, 3)}, r"α at least 0 and σ above 0 pixels, got \[-1, 3\]"),
        ({"elastic": (1, 0)}, "σ above 0"),
        ({"shift": 0.1, "crop_scale": 0.5}, "one kind of crop, got `shift` and `crop_scale`"),
        ({"short_side": (1, 2), "crop_scale": 0.5}, "one kind of crop, got `crop_scale` and `short_side`"),
    ],
)
def test_bounds(options, says):
    with pytest.raises(UserError, match=says):
        Augmentation(**options)


def test_the_ends_of_the_bounds_are_allowed(images):
    most = Augmentation(
        rotation=180, shear=80, translate=1, jitter=1, lighting=10, erase=1, cutout=1, short_side=(1, 1)
    )
    out = batch_transform(most, images, generator())
    assert out.isfinite().all()
    least = Augmentation(elastic=(0, 3), short_side=(1, 1))
    torch.testing.assert_close(batch_transform(least, images, generator()), images.float(), rtol=0, atol=0.05)
    assert torch.equal(sample_transform(least, 16)(images[0]), images[0])


def test_an_image_too_small_for_its_distortion_is_refused(images):
    wide = Augmentation(elastic=(50, 3.9))
    for use in (lambda: batch_transform(wide, images, generator()), lambda: sample_transform(wide, 16)):
        with pytest.raises(UserError, match=r"quarter of the image's side of 16 pixels, got 3\.9"):
            use()
    batch_transform(Augmentation(elastic=(50, 3.8)), images, generator())
    sample_transform(Augmentation(elastic=(50, 3.8)), 16)(images[0])


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (300, 17), (16, 16)])
def test_an_image_of_any_size_is_scaled_before_it_is_cropped(shape):
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    transform = sample_transform(Augmentation(short_side=(1.0, 1.5)), 16)
    assert all(transform(image).shape == (3, 16, 16) for _ in range(30))


def test_horizontal_flip_has_the_last_word():
    parts = Augmentation(rotation=5)
    assert DigitsDataModule(augment=parts).augmentation == parts
    assert DigitsDataModule(augment=parts, horizontal_flip=True).augmentation.flip is True
    assert DigitsDataModule(augment=Augmentation(flip=True)).augmentation.flip is True
    assert DigitsDataModule(augment=Augmentation(flip=True), horizontal_flip=False).augmentation.flip is False


def test_presets_are_what_they_were():
    assert {name: each.parts for name, each in PRESETS.items()} == {
        "none": {},
        "light": {"shift": 0.125},
        "standard": {"crop_scale": 0.35, "jitter": 0.2},
        "strong": {"crop_scale": 0.2, "rotation": 15, "shear": 10, "jitter": 0.4, "erase": 0.25},
    }


def finished(augmentation, images, seed=0, **options):
    finish = Finish(UNIT, augmentation, **options)
    return finish(images, torch.zeros(len(images), dtype=torch.int64), generator(seed), 0)[0]


def test_cutout_sets_squares_to_the_mean_wherever_the_centre_is(images):
    whole = images[:1].expand(4000, -1, -1, -1) // 2 + 1
    plain = finished(None, whole)
    out = finished(Augmentation(cutout=0.5), whole)
    cut = (out != plain).any(1)  # (B, H, W)
    assert (out.movedim(1, 3)[cut] == 0).all()  # after the normalisation, 0 is the mean
    assert torch.equal(out.movedim(1, 3)[~cut], plain.movedim(1, 3)[~cut])
    assert int(cut.sum((1, 2)).max()) == 8 * 8
    heights, widths = cut.any(2).sum(1), cut.any(1).sum(1)
    assert torch.equal(heights * widths, cut.sum((1, 2)))  # rectangles
    # The centre is any of the 16 rows: 9 of them hold all 8 rows of the square, and the corners lose most
    assert float((heights == 8).float().mean()) == pytest.approx(9 / 16, abs=4 * 0.5 / 4000**0.5)
    expected = np.array([sum(top <= at < top + 8 for top in range(-4, 12)) / 16 for at in range(16)])
    np.testing.assert_allclose(cut.float().mean(0), np.outer(expected, expected), atol=4 * 0.5 / 4000**0.5)


def test_the_share_of_images_that_are_cut(images):
    whole = images[:1].expand(4000, -1, -1, -1)
    out = finished(Augmentation(cutout=0.5, cutout_probability=0.3), whole)
    share = float((out != finished(None, whole)).flatten(1).any(1).float().mean())
    assert share == pytest.approx(0.3, abs=4 * 0.5 / 4000**0.5)


def test_lighting_shifts_whole_images_along_the_principal_components(images):
    axes = torch.tensor([[0.2, 0.1, 0.0], [-0.01, 0.02, 0.0], [0.0, 0.0, 0.005]])
    whole = images[:1].expand(6000, -1, -1, -1)
    out = finished(Augmentation(lighting=0.1), whole, axes=axes)
    moved = (out - finished(None, whole)) * torch.tensor(UNIT.normalization.std).view(1, 3, 1, 1)
    colour = moved[..., 0, 0]
    torch.testing.assert_close(moved, colour[:, :, None, None].expand_as(moved), rtol=0, atol=1e-5)
    assert float(colour.mean(0).abs().max()) < 4 * 0.1 * 0.2 / 6000**0.5  # unbiased
    expected = axes.T @ axes * 0.01  # Σ σ² λ² p pᵀ
    torch.testing.assert_close(colour.T.cov(), expected, rtol=0, atol=4 * 0.0004 * (2 / 6000) ** 0.5)


def test_the_colours_are_those_of_the_train_split():
    data = DigitsDataModule(augment=Augmentation(lighting=0.1))
    data.setup("fit")
    pixels = data._tensors["train"].double() / 255
    axes = data.train_dataloader().finish.axes
    assert float(axes) == pytest.approx(float(pixels.var(correction=0)), rel=1e-6)
    slow = DigitsDataModule(augment=Augmentation(lighting=0.1), in_memory=False, num_workers=0)
    slow.setup("fit")
    assert torch.equal(slow.train_dataloader().finish.axes, axes)
    assert data.val_dataloader().finish.augmentation is None


def test_lighting_without_colours_is_refused(images):
    with pytest.raises(UserError, match="Lighting needs the colours of the train split"):
        MemoryLoader(
            images, torch.zeros(40), BatchPlan(40, 8, shuffle=True), UNIT, Augmentation(lighting=0.1)
        )
