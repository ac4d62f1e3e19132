"""`advise_transfer`: what it measures of real scans with a backbone whose weights lie in a file."""

import json
import re

import pytest
import timm
import torch
from lightning.pytorch import Trainer

from lightning_recipes import FineTuning, ImageClassifier
from lightning_recipes.datamodules import DigitsDataModule
from lightning_recipes.datamodules.samples import Samples
from lightning_recipes.recipe import advise_transfer
from lightning_recipes.recipe import transfer as recipe
from lightning_recipes.transfer import advice
from lightning_recipes.transfer.features import extract
from lightning_recipes.utils.errors import UserError

from ..contract.test_contract import hooks
from ..contract.toys import QUIET, same


class Few(DigitsDataModule):
    """The first digits alone: 291 train."""

    def load_samples(self):
        return {"train": super().load_samples()["train"].subset(torch.arange(400))}


class Sorted(DigitsDataModule):
    """As a folder is read: class after class."""

    def load_samples(self):
        given = super().load_samples()["train"]
        order = given.targets.argsort(stable=True)
        return {"train": Samples(given.items[order], given.targets[order], given.reader)}


def pretrained(folder, name="test_resnet", *, on_digits=False):
    """Return a classifier with weights from a file; its statistics may be those of digits."""
    torch.manual_seed(0)
    options = {"img_size": 32} if "vit" in name else {}
    net = timm.create_model(name, num_classes=10, in_chans=1, **options)
    path = folder / f"{name}.pth"
    torch.save(net.state_dict(), path)
    model = ImageClassifier(name, num_classes=10, in_chans=1, image_size=32, weights=path)
    if on_digits:
        data = Few(normalize="pretrained", batch_size=512)
        trainer = Trainer(**QUIET)
        data.trainer, trainer.strategy._lightning_module = trainer, model
        data.setup("fit")
        for part in model.backbone.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = 1.0
        ((images, _),) = data.train_eval_dataloader()  # all in one batch, whose statistics stay
        with torch.no_grad():
            model.backbone(images)
    return model


@pytest.fixture
def small(monkeypatch):
    """Have 20 images a class be many."""
    monkeypatch.setattr(advice, "FEW", 20)


@pytest.mark.parametrize(
    ("images", "similar", "policy", "first"),
    [
        (6, True, "linear_probe", None),
        (6, False, "linear_probe", None),
        (None, True, "probe_then_finetune", "layer2"),
        (None, False, "probe_then_finetune", None),
    ],
)
def test_the_four_cells_of_the_table(images, similar, policy, first, tmp_path, small):
    model = pretrained(tmp_path, on_digits=similar)
    report = advise_transfer(model, Few(limit_per_class=images))
    assert (report.advice.similar, report.advice.policy, report.freeze_until) == (similar, policy, first)
    assert (report.advice.distance <= advice.SIMILAR) == similar
    assert report.advice.images_per_class == (images or 28.5)
    assert list(report.stages) == ["layer1", "layer2", "layer3", "layer4"]
    assert all(0.3 < accuracy <= 1 for accuracy in report.stages.values())
    option = "" if first is None else " --trainer.callbacks.freeze_until layer2"
    assert report.setting == f"--trainer.callbacks+=FineTuning --trainer.callbacks.policy {policy}{option}"


class Uneven(Few):
    """Two digits, of one of them a fourth as many."""

    def load_samples(self):
        given = super().load_samples()["train"]
        ones = (given.targets == 1).nonzero()[:, 0]
        zeros = (given.targets == 0).nonzero()[: len(ones) // 4, 0]
        return {"train": given.subset(torch.cat([zeros, ones]).sort().values)}

    @property
    def class_names(self):
        return ["0", "1"]


def test_the_median_of_two_classes_lies_between_them(tmp_path):
    data = Uneven()
    report = advise_transfer(pretrained(tmp_path), data)
    few, many = data.splits["train"].targets.bincount().tolist()
    assert few < many
    assert (report.fewest, report.advice.images_per_class) == (few, (few + many) / 2)


def test_its_advice_can_be_followed(tmp_path, small):
    model, data = pretrained(tmp_path, on_digits=True), Few()
    report = advise_transfer(model, data)
    callback = FineTuning(report.advice.policy, freeze_until=report.freeze_until, probe_epochs=0)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    Trainer(**QUIET, max_epochs=1, callbacks=[callback]).fit(model, datamodule=data)
    moved = {
        name.split(".")[0]
        for name, value in model.backbone.state_dict().items()
        if not value.equal(before[name])
    }
    assert moved == {"layer2", "layer3", "layer4"}


def test_it_says_what_it_measured(tmp_path):
    report = advise_transfer(pretrained(tmp_path), Few(limit_per_class=6), stages=2)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["images_per_class"] == plain["fewest"] == 6
    assert plain["stages"] == report.stages
    assert plain["distance"] == report.advice.distance > advice.SIMILAR
    assert "6 images a class are few, and unlike those of pretraining" in plain["reason"]
    cells = [text for column in report.table().columns for text in column.cells]
    assert f"{report.advice.distance:.3f} (different; up to {advice.SIMILAR} counts as similar)" in cells
    assert "6 (median), 6 (least)" in cells
    assert "probe at layer3" in cells


@pytest.mark.parametrize("batch_size", [7, 50, 64])
def test_of_few_images_each_counts(batch_size, tmp_path):
    """Once for the distance and once for the probes; a validation image once."""
    model, sizes = pretrained(tmp_path), []
    model.backbone.conv1.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    data = Few(limit_per_class=6, batch_size=batch_size)
    report = advise_transfer(model, data)
    assert sum(sizes) == 2 * 60 + len(data.splits["val"])
    other = advise_transfer(model, Few(limit_per_class=6, batch_size=13))
    assert report.advice.distance == pytest.approx(other.advice.distance, rel=1e-5)
    assert report.stages == pytest.approx(other.stages, abs=2 / len(data.splits["val"]))


def test_of_many_images_some_are_drawn_whatever_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "MEASURED", 100)
    seen = []

    def watched(train, targets, val, val_targets):
        seen.append((targets, val_targets))
        return {"layer4": 0.5}

    monkeypatch.setattr(recipe, "probe_accuracies", watched)
    data = Sorted(batch_size=16)
    advise_transfer(pretrained(tmp_path), data)
    assert data.splits["train"].targets[:100].unique().numel() == 1  # sorted they are
    ((targets, val_targets),) = seen
    assert len(targets) == len(val_targets) == 100
    assert targets.bincount(minlength=10).min() >= 3
    assert val_targets.bincount(minlength=10).min() >= 3


@pytest.mark.parametrize("broken", [False, True])
def test_nothing_of_model_or_data_changes(broken, tmp_path):
    model, data = pretrained(tmp_path), Few(limit_per_class=6)
    model.backbone.layer1.eval()
    trainer = data.trainer = Trainer(**QUIET)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [part.training for part in model.modules()], torch.get_rng_state()
    if broken:
        with pytest.raises(UserError):
            advise_transfer(model, data, stages=9)
    else:
        advise_transfer(model, data)
    assert same(dict(model.state_dict()), before)
    assert [part.training for part in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert hooks(model) == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert data.trainer is trainer


def test_images_are_normalised_as_in_pretraining(tmp_path):
    model, data = pretrained(tmp_path), Few(limit_per_class=6)
    advise_transfer(model, data)
    data.trainer = Trainer(**QUIET)
    data.trainer.strategy._lightning_module = model
    assert data.preprocessing.normalization == model.normalization
    assert extract(model.backbone, data.val_dataloader())[0].isfinite().all()


def test_without_statistics_the_probes_tell(tmp_path, monkeypatch):
    found = {}
    monkeypatch.setattr(recipe, "probe_accuracies", lambda *_: found)
    model, data = pretrained(tmp_path, "test_vit"), Few(limit_per_class=6)
    n = 51  # validation images: two standard errors of the difference are about 0.19
    for last, similar in ((0.5, True), (0.35, True), (0.25, False)):
        found.update({"blocks.4": 0.5, "blocks.5": last})
        report = advise_transfer(model, data)
        assert report.advice.distance is None
        assert report.advice.similar == similar
    assert abs(len(data.splits["val"]) - n) <= 1
    cells = [text for column in report.table().columns for text in column.cells]
    assert "different: an earlier stage is clearly better than the last" in cells


class Marks(Few):
    """Two labels may hold at once."""

    def load_samples(self):
        given = super().load_samples()["train"]
        targets = torch.nn.functional.one_hot(given.targets, 10).float()
        return {"train": Samples(given.items, targets, given.reader)}


@pytest.mark.parametrize(
    ("make", "data", "stages", "says"),
    [
        (
            lambda _: ImageClassifier("test_resnet", in_chans=1),
            Few,
            4,
            "pretrained weights, got fresh ones. Set `pretrained: true`, or give `weights`",
        ),
        (pretrained, Marks, 4, "needs one label an image, got several"),
        (pretrained, Few, 6, "`stages` must lie in 1..5, the stages of the backbone (act1, layer1"),
        (
            lambda folder: pretrained(folder, "test_vit"),
            Few,
            1,
            "VisionTransformer has no BatchNorm by which to measure a distance: two or more stages must "
            "tell, got blocks.5 alone",
        ),
        (pretrained, Few, ["layer5"], "`stages` must be of act1, layer1, layer2, layer3, layer4, got layer5"),
    ],
)
def test_says_what_is_wrong(make, data, stages, says, tmp_path):
    with pytest.raises(UserError, match=re.escape(says)):
        advise_transfer(make(tmp_path), data(), stages=stages)


def test_a_backbone_that_cannot_be_tapped_is_refused(tmp_path):
    model = pretrained(tmp_path)
    model.backbone.forward_intermediates = None
    with pytest.raises(UserError, match="has no `forward_intermediates`"):
        advise_transfer(model, Few(limit_per_class=6))
