import pytest
import torch

from lightning_recipes.datamodules import Augmentation, DigitsDataModule
from lightning_recipes.utils.errors import UserError


def ready(**options):
    data = DigitsDataModule(**options)
    data.setup("fit")
    return data


def ids(data, split):
    """The digits of a split as hashable pictures."""
    return {image.numpy().tobytes() for image in data.splits[split].items}


def test_digits_are_the_real_scans():
    data = ready()
    assert {name: len(samples) for name, samples in data.splits.items()} == {
        "train": 1298,
        "val": 229,
        "test": 270,
    }
    assert (data.num_classes, data.channels, data.image_size) == (10, 1, 32)
    images, targets = next(iter(data.train_dataloader()))
    assert images.shape == (64, 1, 32, 32)
    assert images.dtype == torch.float32
    assert targets.dtype == torch.int64


def test_splits_do_not_overlap():
    data = ready()
    assert not ids(data, "train") & ids(data, "val")
    assert not ids(data, "train") & ids(data, "test")
    assert not ids(data, "val") & ids(data, "test")


def test_the_test_split_is_the_same_for_every_fold():
    folds = [ready(fold=fold, folds=4, in_memory=False) for fold in range(4)]
    assert len({frozenset(ids(data, "test")) for data in folds}) == 1
    assert len(set.union(*(ids(data, "val") for data in folds))) == 1797 - 270


def test_limit_leaves_validation_and_test_alone():
    data = ready(limit_per_class=5)
    assert data.splits["train"].targets.bincount().tolist() == [5] * 10
    assert (len(data.splits["val"]), len(data.splits["test"])) == (229, 270)


def test_both_paths_give_the_same_evaluation():
    fast, ordinary = ready(in_memory=True), ready(in_memory=False, num_workers=0)
    for name in ("val_dataloader", "test_dataloader", "train_eval_dataloader"):
        for a, b in zip(getattr(fast, name)(), getattr(ordinary, name)(), strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])


def test_the_memory_limit_decides():
    assert ready().in_memory is True  # 1,797 · 32 · 32 bytes
    assert ready(memory_limit_gib=0.001).in_memory is False
    assert ready(memory_limit_gib=0.002).in_memory is True


def test_horizontal_flip_is_a_switch():
    assert DigitsDataModule().augmentation.flip is False  # a mirrored digit is no digit
    assert DigitsDataModule(horizontal_flip=True).augmentation.flip is True
    assert DigitsDataModule(augment="none", horizontal_flip=True).augmentation.flip is False


@pytest.mark.parametrize("augment", ["none", "light", Augmentation(cutout=0.5)])
def test_whether_a_mirrored_image_keeps_its_class_does_not_depend_on_the_augmentation(augment):
    class Mirrorable(DigitsDataModule):
        mirrorable = True

    assert DigitsDataModule(augment=augment).horizontal_flip is False
    assert DigitsDataModule(augment=augment, horizontal_flip=True).horizontal_flip is True
    assert Mirrorable(augment=augment).horizontal_flip is True
    assert Mirrorable(augment=augment, horizontal_flip=False).horizontal_flip is False
    assert DigitsDataModule(augment=Augmentation(flip=True)).horizontal_flip is True


def test_balanced_sampling_evens_out_the_classes():
    class Skewed(DigitsDataModule):
        def load_samples(self):
            samples = super().load_samples()["train"]
            few = (samples.targets == 3).nonzero().flatten()[20:]
            keep = torch.ones(len(samples), dtype=torch.bool)
            keep[few] = False
            return {"train": samples.subset(keep.nonzero().flatten())}

    def share(balanced):
        data = Skewed(balanced=balanced)
        data.setup("fit")
        loader = data.train_dataloader()
        drawn = []
        for epoch in range(5):
            loader.sampler.set_epoch(epoch)
            drawn += [targets for _, targets in loader]
        return float((torch.cat(drawn) == 3).float().mean())

    assert share(balanced=False) == pytest.approx(14 / 1160, abs=0.003)
    assert share(balanced=True) == pytest.approx(0.1, abs=0.015)  # about 5,700 draws: σ = 0.004


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"image_size": 2}, "at least 8 pixels, got 2"),
        ({"crop_pct": 1.5}, r"\(0, 1\], got 1.5"),
        ({"augment": "lite"}, "got 'lite'. Did you mean `light`?"),
        ({"normalize": "pretraned"}, "got 'pretraned'. Did you mean `pretrained`?"),
        ({"fold": 1}, "go together, got fold=1 and folds=None"),
        ({"fold": 5, "folds": 5}, "`fold` must lie in 0..4"),
        ({"fold": 0, "folds": 200}, "at least 200 images of each class"),
        ({"val_fraction": 0.0}, "`val_fraction` must lie between 0 and 1"),
        ({"limit_per_class": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_arguments(options, says):
    with pytest.raises(UserError, match=says):
        ready(**options)


def test_no_test_split_on_request():
    data = ready(test_fraction=0)
    assert "test" not in data.splits
    with pytest.raises(UserError, match="no test split"):
        data.test_dataloader()
