"""Test-time augmentation in `ImageClassifier`: where it acts, what it measures, what it refuses."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from lightning_recipes import EnsembleClassifier, ImageClassifier
from lightning_recipes.datamodules import DigitsDataModule, ImageFolderDataModule
from lightning_recipes.modules.stacking import same_architecture
from lightning_recipes.utils.errors import UserError

from ..contract.toys import QUIET

MODES = ("none", "flip", "ten_crop", "multi_scale")


def small(**options):
    """A classifier whose probabilities differ from image to image."""
    seed_everything(0, verbose=False)
    model = ImageClassifier("test_resnet", **{"num_classes": 3, "in_chans": 1, **options})
    nn.init.normal_(model.head.weight, std=0.5)
    return model.eval()


@pytest.fixture
def images():
    return torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def data(folder, **options):
    return ImageFolderDataModule(
        folder, **{"batch_size": 4, "val_fraction": 0.3, "test_fraction": 0.3, **options}
    )


def by_hand(model, images, mode, activation=lambda x: x.softmax(1)):
    """The mean over torchvision's views."""
    size = images.shape[-1]
    scales = {"none": [], "flip": [], "ten_crop": [256], "multi_scale": [224, 256, 384, 480, 640]}[mode]
    shown = [images] if not scales else []
    if mode == "flip":
        shown.append(V.horizontal_flip(images))
    for scale in scales:
        shown += V.ten_crop(V.resize(images, [round(size * scale / 224)], antialias=True), [size, size])
    with torch.no_grad():
        return torch.stack([activation(model(view)) for view in shown]).mean(0)


@pytest.mark.parametrize("mode", MODES)
def test_predictions_are_the_mean_over_torchvision_s_views(mode, images):
    model = small(tta=mode)
    with torch.no_grad():
        got = model.predict_step(images)
        again = model.predict_step((images, torch.zeros(5)))
    torch.testing.assert_close(got, by_hand(model, images, mode), rtol=1e-4, atol=1e-5)
    assert torch.equal(got, again)
    torch.testing.assert_close(got.sum(1), torch.ones(5))


def test_the_views_do_not_agree(images):
    """Otherwise the test above would say nothing."""
    with torch.no_grad():
        found = [small(tta=mode).predict_step(images) for mode in MODES]
    for k, one in enumerate(found):
        assert all(float((one - other).abs().max()) > 1e-3 for other in found[:k])


def test_multi_label_averages_each_sigmoid(images):
    model = small(tta="ten_crop", multi_label=True)
    expected = by_hand(model, images, "ten_crop", torch.sigmoid)
    with torch.no_grad():
        torch.testing.assert_close(model.predict_step(images), expected, rtol=1e-4, atol=1e-5)


def test_a_symmetric_image_looks_the_same_from_both_sides(images):
    symmetric = images + images.flip(-1)
    with torch.no_grad():
        torch.testing.assert_close(small(tta="flip").predict_step(symmetric), small().predict_step(symmetric))


@pytest.mark.parametrize("options", [{}, {"class_weights": [1.0, 2.0, 0.5], "label_smoothing": 0.1}])
def test_the_test_s_loss_is_that_of_the_mean(folder, options):
    module, model = data(folder), small(tta="flip", **options)
    (result,) = Trainer(**QUIET).test(model, datamodule=module, verbose=False)
    shown, targets = (torch.cat(part) for part in zip(*module.test_dataloader(), strict=True))
    likely = by_hand(model, shown, "flip")
    assert result["test/acc"] == pytest.approx(float((likely.argmax(1) == targets).float().mean()))
    if not options:
        assert result["test/loss"] == pytest.approx(float(F.nll_loss(likely.log(), targets)), rel=1e-4)
        return
    weights = torch.tensor(options["class_weights"])
    losses = [
        float(F.cross_entropy(p.log(), t, weights, label_smoothing=0.1)) * len(t)
        for p, t in zip(likely.split(4), targets.split(4), strict=True)
    ]  # a batch's loss is a weighted mean, so batch by batch
    assert result["test/loss"] == pytest.approx(sum(losses) / len(targets), rel=1e-4)


def test_the_test_s_loss_of_several_labels_is_that_of_the_mean(images):
    model = small(tta="flip", multi_label=True)
    targets = torch.tensor([[1.0, 0.0, 1.0]] * 5)
    loader = torch.utils.data.DataLoader(list(zip(images, targets, strict=True)), batch_size=2)
    (result,) = Trainer(**QUIET).test(model, loader, verbose=False)
    expected = F.binary_cross_entropy(by_hand(model, images, "flip", torch.sigmoid), targets)
    assert result["test/loss"] == pytest.approx(float(expected), rel=1e-4)


def test_training_and_validation_see_the_image_alone(folder):
    measured = []
    for mode in ("none", "ten_crop"):
        trainer = Trainer(**QUIET, max_epochs=1)
        trainer.fit(small(tta=mode), datamodule=data(folder))
        measured.append({k: float(v) for k, v in trainer.callback_metrics.items()})
    assert measured[0] == measured[1]
    assert "val/loss" in measured[0]


def test_it_travels_with_the_checkpoint(folder, tmp_path, images):
    trainer = Trainer(**QUIET, max_epochs=1)
    trainer.fit(small(tta="ten_crop"), datamodule=data(folder, horizontal_flip=False))
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True).eval()
    assert (loaded.tta, loaded.horizontal_flip) == ("ten_crop", False)
    other = ImageClassifier.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True, tta="none")
    assert other.tta == "none"


def test_a_checkpoint_that_knows_nothing_of_it_loads(folder, tmp_path):
    trainer = Trainer(**QUIET, max_epochs=1)
    trainer.fit(small(), datamodule=data(folder))
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    stored = torch.load(tmp_path / "whole.ckpt", weights_only=True)
    del stored["hyper_parameters"]["tta"], stored["lightning_recipes"]["horizontal_flip"]
    torch.save(stored, tmp_path / "old.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "old.ckpt", weights_only=True)
    assert (loaded.tta, loaded.horizontal_flip) == ("none", None)


def test_no_view_is_mirrored_where_left_and_right_matter(folder):
    model, module = small(tta="ten_crop"), data(folder, horizontal_flip=False)
    predicted = []
    for flip in (False, True):  # a module that saw data of the other kind while it was trained
        module.horizontal_flip = flip
        model.horizontal_flip = None
        Trainer(**QUIET).test(model, datamodule=module, verbose=False)
        with torch.no_grad():
            predicted.append(model.predict_step(next(iter(module.test_dataloader()))))
    shown, _ = next(iter(module.test_dataloader()))
    size = shown.shape[-1]
    larger = V.resize(shown, [round(size * 256 / 224)], antialias=True)
    with torch.no_grad():
        five = torch.stack([model(v).softmax(1) for v in V.five_crop(larger, [size, size])]).mean(0)
    torch.testing.assert_close(predicted[0], five, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predicted[1], by_hand(model, shown, "ten_crop"), rtol=1e-4, atol=1e-5)


def test_a_flip_is_refused_where_left_and_right_matter_before_anything_is_trained():
    model = ImageClassifier("test_resnet", in_chans=1, tta="flip")
    before = [p.clone() for p in model.parameters()]
    for start in ("fit", "test"):
        with pytest.raises(UserError, match=r"left and right matter. Take `ten_crop`"):
            getattr(Trainer(**QUIET, max_epochs=1), start)(
                model, datamodule=DigitsDataModule(limit_per_class=10)
            )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(("mode", "normalize"), [("flip", "whiten"), ("ten_crop", "pca")])
def test_no_views_are_made_of_rotated_images(mode, normalize, folder):
    rotated = data(folder, normalize=normalize, augment="none")
    with pytest.raises(
        UserError, match=f"`tta: {mode}` moves pixels, but after `normalize: pca` or `whiten`"
    ):
        Trainer(**QUIET, max_epochs=1).fit(small(tta=mode), datamodule=rotated)
    model = small()
    Trainer(**QUIET, max_epochs=1).fit(model, datamodule=rotated)
    Trainer(**QUIET).test(model, datamodule=rotated, verbose=False)
    model.tta = mode  # as of a checkpoint that is loaded with another
    with pytest.raises(UserError, match="are no pixels"):
        Trainer(**QUIET).test(model, datamodule=rotated, verbose=False)


def test_what_the_network_was_trained_on_goes_before_what_it_is_tested_on(folder):
    model = small(tta="flip")
    model.horizontal_flip = True
    Trainer(**QUIET).test(model, datamodule=data(folder, horizontal_flip=False), verbose=False)
    assert model.horizontal_flip is True


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match=r"got 'tencrop'. Did you mean `ten_crop`"):
        small(tta="tencrop")


def test_an_ensemble_leaves_it_aside(images):
    plain, turned = EnsembleClassifier([small()]), EnsembleClassifier([small(tta="flip")])
    assert torch.equal(plain.predict_step(images), turned.predict_step(images))


def test_members_that_are_tested_otherwise_still_hang_in_one_stack():
    one, other = small(), small(tta="flip")
    other.horizontal_flip = True
    assert same_architecture(one, other)
