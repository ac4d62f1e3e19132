import copy
import pickle

import pytest
import torch
from torchvision.transforms import v2

from lightning_recipes.preprocessing import (
    Normalization,
    Preprocessing,
    channel_statistics,
    fit_geometry,
    fit_normalization,
)
from lightning_recipes.utils.errors import UserError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def images(count=30, channels=3, size=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def fitted(mode, channels=3):
    if mode == "none":
        return Preprocessing(channels, 4, 0.9, Normalization.none(channels))
    return Preprocessing(channels, 4, 0.9, fit_normalization([images(100, channels)], mode))


ALL = ["none", "mean_image", "channel_mean", "channel_mean_std", "pca", "whiten"]


def test_normalize_is_torchvision_s():
    ours = Preprocessing(3, 8, 1.0, Normalization(MEAN, STD)).normalize(images())
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])(images())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # the same in another order of operations


def test_normalized_train_images_have_mean_0_and_std_1(digits):
    train = digits[0][:, None]
    normal = Preprocessing(1, 8, 1.0, Normalization(*channel_statistics([train]))).normalize(train)
    assert float(normal.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normal.std(correction=0)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("mode", ALL)
def test_warped_images_are_normalised_as_stored_ones_and_left_as_they_were(mode):
    whole = fitted(mode)
    stored = whole.normalize(images())
    for dtype in (torch.float32, torch.float64):
        warped = images().to(dtype)
        given = warped.clone()
        assert torch.equal(whole.normalize(warped), stored)
        assert torch.equal(warped, given)
    assert stored.dtype == torch.float32


def test_tensors_are_moved_to_a_device_once():
    whole = fitted("whiten").normalization
    meta = images().to("meta")
    assert whole.apply(meta).device.type == "meta"
    first = whole._on(torch.device("meta"))
    assert all(a is b for a, b in zip(whole._on(torch.device("meta")), first, strict=True))
    assert whole.apply(images()).device.type == "cpu"
    for twin in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert twin == whole
        assert not twin._placed
        assert torch.equal(twin.apply(images()), whole.apply(images()))


def test_geometry_keeps_the_centre():
    image = torch.zeros(1, 10, 20, dtype=torch.uint8)
    image[:, :, 5:15] = 255  # the centre square
    assert torch.equal(fit_geometry(image, 10), torch.full((1, 10, 10), 255, dtype=torch.uint8))


def test_geometry_of_a_batch_is_that_of_each_image(digits):
    batch = digits[0][:, None]
    each = torch.stack([fit_geometry(image, 32, 0.875) for image in batch])
    assert torch.equal(fit_geometry(batch, 32, 0.875), each)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ALL)
def test_a_file_of_plain_data_brings_it_back(mode, channels, tmp_path):
    whole = fitted(mode, channels)
    torch.save(whole.to_dict(), tmp_path / "stored")
    stored = torch.load(tmp_path / "stored", weights_only=True)
    assert all(len(value) <= 3 for value in stored.values() if isinstance(value, list))
    again = Preprocessing.from_dict(stored)
    assert again == whole
    assert hash(again) == hash(whole)
    assert torch.equal(again.normalize(images(channels=channels)), whole.normalize(images(channels=channels)))


def test_a_mean_image_takes_no_more_of_a_file_than_its_own_numbers(tmp_path):
    torch.save(fitted("mean_image").to_dict(), tmp_path / "stored")
    assert torch.load(tmp_path / "stored")["mean"].untyped_storage().nbytes() == 3 * 4 * 4 * 4


def test_what_earlier_versions_stored_is_read():
    old = {"channels": 3, "image_size": 32, "crop_pct": 0.9, "mean": list(MEAN), "std": list(STD)}
    whole = Preprocessing(3, 32, 0.9, Normalization(MEAN, STD))
    assert Preprocessing.from_dict(old) == whole
    assert whole.to_dict() == old


def test_equal_means_the_same_numbers():
    assert Preprocessing(1, 4, 1.0, Normalization.none(1)) != Preprocessing(1, 4, 0.9, Normalization.none(1))
    one = fitted("whiten")
    other = Normalization(one.normalization.mean, (1.0,) * 3, one.normalization.matrix + 1e-3)
    assert one != Preprocessing(3, 4, 0.9, other)
    assert one != fitted("mean_image")


def test_a_mean_image_of_other_images_is_refused():
    for channels, size in ((3, 8), (1, 4)):
        with pytest.raises(UserError, match=r"images of \(3, 4, 4\), these are of .*Set `image_size` to 4"):
            Preprocessing(channels, size, 1.0, fitted("mean_image").normalization)
