"""`CachedFeatures`: the same probe as on the images, for one pass of the backbone."""

import re
from math import ceil

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_recipes import CachedFeatures, ExactResume, ImageClassifier
from lightning_recipes.utils.errors import UserError

from ..contract.toys import QUIET, same
from ..processes import run_module
from .cached_run import Calls, Few, Marks, data, fit, head, probe


def attached(model=None, **options):
    """Return cached features whose loaders can be asked for, and their module."""
    model, given = model or probe(), data(**options)
    trainer = Trainer(**QUIET, max_epochs=1)
    given.trainer, trainer.strategy._lightning_module = trainer, model
    given.prepare_data()
    given.setup("fit")
    return given, model


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Few, {}),
        (Few, {"balanced": True}),
        (Few, {"in_memory": False, "num_workers": 0}),
        (Marks, {}),
    ],
)
def test_the_probe_is_that_on_the_images(kind, options):
    ends = []
    for cached in (True, False):
        model = probe(num_classes=2, multi_label=True) if kind is Marks else probe()
        start = head(model)
        trainer = fit(model, data(cached=cached, kind=kind, **options))
        ends.append({**head(model), "loss": trainer.callback_metrics["val/loss"]})
        assert not torch.equal(start["weight"], ends[-1]["weight"])
    # the backbone saw the images in other batches, whose sums have another order
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-6)


def test_the_backbone_runs_once_over_each_image():
    calls, given = Calls(), data()
    fit(probe(), given, calls)
    sizes = {name: len(given.splits[name]) for name in ("train", "val")}
    assert sum(calls.sizes) == sizes["train"] + sizes["val"]
    assert len(calls.sizes) == sum(ceil(size / 16) for size in sizes.values())


def test_a_second_fit_makes_them_anew():
    calls, given, model = Calls(), data(), probe()
    fit(model, given, calls)
    once = len(calls.sizes)
    fit(model, given, calls)
    assert len(calls.sizes) == 2 * once


def test_it_says_that_the_augmentation_is_off(caplog):
    given, _ = attached(augment="strong")
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        loader = given.train_dataloader()
    assert "the backbone ran once over 87 train images; no augmentation" in caplog.text
    plain, _ = attached(augment="none")
    assert torch.equal(loader.features, plain.train_dataloader().features)


def test_features_and_targets_come_in_the_order_of_the_images():
    given, model = attached()
    features, images = given.train_dataloader(), given.data.train_dataloader()
    assert len(features) == len(images) == 5
    model.eval()
    for epoch in range(2):
        features.sampler.set_epoch(epoch)
        images.sampler.set_epoch(epoch)
        for (x, y), (pictures, targets) in zip(features, images, strict=True):
            assert torch.equal(y, targets)
            with torch.no_grad():
                torch.testing.assert_close(x, model.backbone(pictures), rtol=1e-4, atol=1e-6)


def test_validation_has_each_image_once():
    given, _ = attached()
    targets = torch.cat([y for _, y in given.val_dataloader()])
    assert torch.equal(targets, given.splits["val"].targets)
    targets = torch.cat([y for _, y in given.train_eval_dataloader()])
    assert torch.equal(targets, given.splits["train"].targets)


def test_the_backbone_does_not_change_also_without_a_policy():
    """Nothing of it moves, statistics included: it is not called, and has no gradient."""
    model = probe()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    Trainer(**QUIET, max_epochs=1).fit(model, datamodule=data())
    assert same(dict(model.backbone.state_dict()), before)


def test_what_is_measured_afterwards_is_measured_on_images_too():
    model, given = probe(), data()
    trainer = fit(model, given)
    (on_features,) = trainer.validate(model, datamodule=given, verbose=False)
    (on_images,) = trainer.validate(model, datamodule=given.data, verbose=False)
    assert on_features == pytest.approx(on_images, rel=1e-4)
    assert trainer.callback_metrics["val/loss"] == pytest.approx(on_features["val/loss"])
    (tested,) = trainer.test(model, datamodule=given, verbose=False)
    (directly,) = trainer.test(model, datamodule=given.data, verbose=False)
    assert tested == directly


def test_the_checkpoint_is_that_of_a_run_on_images(tmp_path):
    given = data()
    trainer = fit(probe(), given)
    trainer.save_checkpoint(tmp_path / "probe.ckpt")
    model = ImageClassifier.load_from_checkpoint(tmp_path / "probe.ckpt", weights_only=True)
    assert model.preprocessing == given.preprocessing
    assert model.class_names == [str(digit) for digit in range(10)]
    images, _ = next(iter(given.data.val_dataloader()))
    assert model.eval()(images).shape == (15, 10)


@pytest.mark.parametrize("every", [None, 3])
def test_a_resumed_run_takes_the_features_of_the_restored_backbone(every, tmp_path):
    """The module that goes on has another backbone until the checkpoint is loaded; within an epoch too."""
    keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=every)
    model = probe()
    fit(model, data(), ExactResume(), keep, enable_checkpointing=True)
    paths = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert len(paths) == (3 if every is None else 5)
    for path in paths[:-1]:
        other = probe(seed=2)
        assert not torch.equal(other.backbone.conv1[0].weight, model.backbone.conv1[0].weight)
        torch.manual_seed(1)  # of the order of the images
        fit(other, data(), ExactResume(), path=path)
        assert same(dict(other.state_dict()), dict(model.state_dict())), path.name


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_the_backbone_runs_in_the_precision_of_the_run(precision):
    ends = []
    for cached in (True, False):
        model = probe()
        trainer = fit(model, data(cached=cached), precision=precision)
        ends.append({**head(model), "loss": trainer.callback_metrics["val/loss"]})
        assert ends[-1]["weight"].dtype == (torch.float32 if "mixed" in precision else model.dtype)
    # 8 bits of mantissa, or features kept in float32
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if precision == "64-true" else {"rtol": 3e-2, "atol": 3e-3}
    torch.testing.assert_close(*ends, **tolerance)


@pytest.mark.parametrize("policy", ["finetune", "probe_then_finetune", "gradual_unfreeze", "scratch"])
def test_a_policy_that_trains_the_backbone_is_refused(policy):
    says = f"`{policy}` trains the backbone, whose features CachedFeatures has computed once and for all"
    with pytest.raises(UserError, match=re.escape(says)):
        fit(probe(), data(), policy=policy)


def test_a_module_without_a_backbone_is_refused():
    class Plain(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            return self.layer.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    with pytest.raises(UserError, match="Plain has no `backbone` whose features could be cached"):
        Trainer(**QUIET, max_epochs=1).fit(Plain(), datamodule=data())


def test_it_says_of_the_images_what_their_datamodule_says():
    for kind in (Few, Marks):
        images = kind()
        cached = CachedFeatures(images)
        for name in ("class_names", "num_classes", "multi_label", "channels", "image_size", "preprocessing"):
            assert getattr(cached, name) == getattr(images, name), name


@pytest.mark.slow
def test_two_processes_share_the_work_and_do_what_one_does(tmp_path):
    done = run_module("tests.datamodules.cached_run", tmp_path)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, kind, classes in (("one label", Few, 10), ("marks", Marks, 2)):
        one, two = (rank[name] for rank in ranks)
        sizes = one.pop("sizes"), two.pop("sizes")
        assert int(sum(part.sum() for part in sizes)) == 87 + 15
        assert same(one, two)
        model, given = probe(num_classes=classes, multi_label=kind is Marks), data(kind=kind)
        trainer = fit(model, given)
        assert torch.equal(one["targets"], given.splits["train"].targets)
        # Gradients are averaged over two halves instead of one whole: equal but for the order of sums.
        expected = {"head": head(model), "loss": trainer.callback_metrics["val/loss"]}
        found = {key: one[key] for key in expected}
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
