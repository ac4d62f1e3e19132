import pytest
import torch
from lightning.pytorch import Trainer

from lightning_recipes.datamodules import DigitsDataModule, ImageFolderDataModule
from lightning_recipes.modules import ImageClassifier
from lightning_recipes.preprocessing import Normalization
from lightning_recipes.utils.errors import UserError

from ..contract.toys import QUIET

FITTED = ["mean_image", "channel_mean", "channel_mean_std", "pca", "whiten"]
SMALL = {"image_size": 8, "augment": "none"}


def ready(**options):
    data = DigitsDataModule(**{**SMALL, **options})
    data.setup("fit")
    return data


def classifier(**options):
    return ImageClassifier("test_resnet", **{"num_classes": 10, "in_chans": 1, **options})


class Altered(DigitsDataModule):
    """The digits, with other pixels wherever nothing is trained."""

    @property
    def splits(self):
        splits = super().splits
        for name in ("val", "test"):
            splits[name].items.fill_(255)
        return splits


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("normalize", FITTED)
def test_it_is_fitted_on_the_train_split_only(normalize, in_memory):
    data = ready(normalize=normalize)
    altered = Altered(**SMALL, normalize=normalize, in_memory=in_memory)
    altered.setup("fit")
    assert not torch.equal(altered.splits["val"].items, data.splits["val"].items)
    assert altered.preprocessing == data.preprocessing


def test_the_figures_of_the_train_split_are_numpy_s():
    train = DigitsDataModule().splits["train"].load(8, 1.0).double().numpy() / 255
    one = ready(normalize="channel_mean_std").preprocessing.normalization
    assert one.mean == pytest.approx([train.mean()], rel=1e-9)
    assert one.std == pytest.approx([train.std()], rel=1e-9)
    assert one == ready(normalize="auto", in_memory=False).preprocessing.normalization
    image = ready(normalize="mean_image").preprocessing.normalization.mean
    assert image.flatten().tolist() == pytest.approx(train.mean(0).flatten().tolist(), abs=1e-7)


@pytest.mark.parametrize("normalize", FITTED)
def test_it_is_fitted_once(normalize, monkeypatch):
    data = ready(normalize=normalize, in_memory=False)
    first = data.preprocessing.normalization
    monkeypatch.setattr(type(data.splits["train"]), "stream", None)
    assert data.preprocessing.normalization is first


@pytest.mark.parametrize("normalize", FITTED)
def test_both_paths_give_the_same_batches(normalize, folder):
    def loaders(in_memory):
        data = ImageFolderDataModule(
            folder, **SMALL, normalize=normalize, batch_size=8, in_memory=in_memory, num_workers=0
        )
        data.setup("fit")
        return data.val_dataloader(), data.test_dataloader(), data.train_dataloader()

    for fast, ordinary in zip(loaders(True), loaders(False), strict=True):
        for a, b in zip(fast, ordinary, strict=True):
            assert torch.equal(a[0], b[0])
            assert a[0].dtype == torch.float32


def test_augmented_images_are_normalised_too():
    data = ready(normalize="whiten", augment="strong")
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (64, 1, 8, 8)
    assert images.isfinite().all()


def test_none_only_scales():
    data = ready(normalize="none")
    images, _ = next(iter(data.val_dataloader()))
    assert data.preprocessing.normalization == Normalization((0.0,), (1.0,))
    assert float(images.min()) == 0
    assert float(images.max()) == 1


def test_an_empty_train_split_is_refused():
    class Empty(DigitsDataModule):
        def load_samples(self):
            samples = super().load_samples()["train"]
            return {"train": samples.subset(torch.arange(0)), "val": samples, "test": samples}

    with pytest.raises(UserError, match="Cannot fit a normalisation on an empty train split"):
        _ = Empty(normalize="whiten").preprocessing


# What the module knows


def attached(data, module):
    data.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    data.trainer.strategy._lightning_module = module
    return data


def test_pretrained_weights_bring_their_own():
    class Pretrained:
        normalization = ((0.25,), (0.5,))

    data = attached(ready(), Pretrained())
    for normalize in ("auto", "pretrained"):
        data.normalize = normalize
        assert data.preprocessing.normalization == Normalization((0.25,), (0.5,))
    data.normalize = "channel_mean_std"
    assert data.preprocessing.normalization == ready().preprocessing.normalization


def test_pretrained_without_pretrained_weights_is_refused():
    with pytest.raises(UserError, match="pretrained: true"):
        _ = ready(normalize="pretrained").preprocessing
    with pytest.raises(UserError, match="pretrained: true"):
        _ = attached(ready(normalize="pretrained"), classifier()).preprocessing


@pytest.mark.parametrize("normalize", ["auto", "none", "channel_mean", "whiten"])
def test_trained_weights_keep_theirs_wherever_they_are_not_trained_anew(normalize, tmp_path):
    def images(data):
        return next(iter(data.val_dataloader()))[0]

    trained = ready(normalize="mean_image", limit_per_class=5)
    model = classifier()
    trainer = Trainer(**QUIET, max_steps=1)
    trainer.fit(model, datamodule=trained)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    for run in ("validate", "resume"):
        other = ready(normalize=normalize)
        again = Trainer(**QUIET, max_steps=2)
        if run == "resume":
            again.fit(classifier(), datamodule=other, ckpt_path=tmp_path / "whole.ckpt")
        else:
            again.validate(classifier(), datamodule=other, ckpt_path=tmp_path / "whole.ckpt", verbose=False)
        assert other.preprocessing == trained.preprocessing
        assert torch.equal(images(other), images(trained))


def test_a_fit_that_begins_anew_obeys_a_mode_that_is_named():
    model = classifier()
    for normalize, expected in (
        ("channel_mean", ready(normalize="channel_mean")),
        ("mean_image", ready(normalize="mean_image")),
        ("auto", ready(normalize="mean_image")),  # what the weights are used to
        ("none", ready(normalize="none")),
    ):
        Trainer(**QUIET, max_steps=1).fit(model, datamodule=ready(normalize=normalize))
        assert model.preprocessing == expected.preprocessing
        assert model.normalization == expected.preprocessing.normalization


def test_a_checkpoint_s_mean_image_asks_for_images_of_its_size(tmp_path):
    model = classifier()
    trainer = Trainer(**QUIET, max_steps=1)
    trainer.fit(model, datamodule=ready(normalize="mean_image"))
    with pytest.raises(UserError, match=r"fitted on images of \(1, 8, 8\), these are of \(1, 16, 16\)"):
        trainer.validate(model, datamodule=ready(image_size=16), verbose=False)


@pytest.mark.parametrize("normalize", ["mean_image", "pca", "whiten"])
def test_a_checkpoint_is_enough_to_give_what_was_validated(normalize, tmp_path):
    model = classifier()
    data = ready(normalize=normalize, batch_size=100)
    trainer = Trainer(**QUIET, max_steps=3)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    assert torch.load(tmp_path / "whole.ckpt", weights_only=True)["lightning_recipes"]["preprocessing"]
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True).eval()
    assert loaded.preprocessing == data.preprocessing
    stored = data.splits["val"].load(8, 1.0)
    images = torch.cat([images for images, _ in data.val_dataloader()])
    torch.testing.assert_close(loaded.preprocessing.normalize(stored), images, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        ours = loaded.predict_step(loaded.preprocessing.normalize(stored))
        theirs = torch.cat([model.eval().predict_step(batch) for batch in data.val_dataloader()])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)  # batches of other sizes
