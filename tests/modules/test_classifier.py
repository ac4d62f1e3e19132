import pytest
import timm
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from lightning_recipes.datamodules import DigitsDataModule, ImageFolderDataModule
from lightning_recipes.modules import ImageClassifier
from lightning_recipes.modules.metrics import classification_metrics
from lightning_recipes.preprocessing import Normalization
from lightning_recipes.schedules import Schedule
from lightning_recipes.utils.errors import UserError

from ..contract.toys import QUIET


def small(**options):
    return ImageClassifier("test_resnet", **{"num_classes": 3, "in_chans": 1, **options})


# What it is made of


@pytest.mark.parametrize(
    "backbone",
    [
        "test_resnet",
        "test_vit",
        "test_convnext",
        "test_efficientnet",
        "deit_tiny_distilled_patch16_224",
        "vgg11",
    ],
)
def test_any_backbone(backbone):
    model = ImageClassifier(backbone, num_classes=4, in_chans=1, image_size=64).eval()
    images = torch.randn(2, 1, 64, 64)
    features = model.backbone(images)
    assert features.ndim == 2
    assert model(images).shape == (2, 4)
    assert isinstance(model.head, nn.Linear)
    assert model.head.in_features == features.shape[1]
    probabilities = model.predict_step((images, torch.zeros(2)))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))


def test_the_head_is_the_backbone_s_own():
    seed_everything(0)
    whole = timm.create_model("test_resnet", num_classes=3, in_chans=1).eval()
    seed_everything(0)
    model = small().eval()
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(model(images), whole(images))


@pytest.mark.parametrize("backbone", ["resnetv2_18", "dpn48b"])
def test_a_head_that_is_a_convolution_keeps_its_weights(backbone):
    seed_everything(0)
    whole = timm.create_model(backbone, num_classes=3).eval()
    seed_everything(0)
    model = ImageClassifier(backbone, num_classes=3).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images), whole(images), rtol=1e-4, atol=1e-5)  # two ways to sum


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "resnetv2_18", "levit_128s"]
)  # Linear, Conv2d, NormLinear
def test_any_head_is_initialized_and_drops_weights_as_the_backbone_does(backbone):
    head = ImageClassifier(backbone, num_classes=3, init="orthogonal", drop_connect=0.5).head
    torch.testing.assert_close(head.weight @ head.weight.T, torch.eye(3), rtol=0, atol=1e-5)
    features = torch.randn(2, head.in_features)
    assert not torch.equal(head(features), head(features))


def test_features_take_the_place_of_images():
    model = small().eval()
    images = torch.randn(2, 1, 32, 32)
    features = model.backbone(images)
    assert torch.equal(model(features), model(images))
    assert torch.equal(model(features), model.head(features))


def test_image_size_is_handed_to_architectures_that_need_it():
    model = ImageClassifier("vit_tiny_patch16_224", num_classes=3, image_size=96)
    assert model.backbone.patch_embed.img_size == (96, 96)
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_activation_dropout_and_stochastic_depth():
    model = ImageClassifier("resnet18", num_classes=3, act="gelu", drop_rate=0.3, drop_path_rate=0.2)
    kinds = [type(module).__name__ for module in model.modules()]
    assert "ReLU" not in kinds
    assert any(kind.startswith("GELU") for kind in kinds)
    assert model.backbone.drop_rate == 0.3
    assert "DropPath" in kinds


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_local_weights(tmp_path, ending):
    donor = timm.create_model("test_resnet", num_classes=7)  # three channels, other classes
    path = tmp_path / f"weights.{ending}"
    save_file(donor.state_dict(), path) if ending == "safetensors" else torch.save(
        {"state_dict": {f"module.{k}": v for k, v in donor.state_dict().items()}}, path
    )
    model = ImageClassifier("test_resnet", num_classes=3, in_chans=3, weights=path)
    loaded = model.backbone.state_dict()
    assert all(torch.equal(value, donor.state_dict()[name]) for name, value in loaded.items())
    assert model.normalization == Normalization(donor.pretrained_cfg["mean"], donor.pretrained_cfg["std"])
    grey = small(weights=path)
    first = next(name for name, value in donor.state_dict().items() if value.ndim == 4)
    torch.testing.assert_close(
        grey.backbone.state_dict()[first], donor.state_dict()[first].sum(1, keepdim=True)
    )
    assert grey.normalization == Normalization(
        (sum(donor.pretrained_cfg["mean"]) / 3,),
        (sum(donor.pretrained_cfg["std"]) / 3,),
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backbone": "resnet81"}, "no backbone 'resnet81'. Did you mean `resnet18`"),
        ({"act": "gelo"}, "no activation 'gelo'.*Did you mean `gelu`?"),
        ({"backbone": "vgg11", "drop_path_rate": 0.1}, "'vgg11' takes no `drop_path_rate`"),
        ({"num_classes": 1}, "at least 2, got 1"),
        ({"label_smoothing": 1.0}, r"\[0, 1\), got 1.0"),
        ({"class_weights": [1.0]}, "needs 3 numbers, one a class, got 1"),
        ({"weights": "nothing.pth"}, "must be a file, got nothing.pth"),
        ({"weights": "nothing.pth", "pretrained": True}, "exclude each other"),
        (
            {"backbone": "test_vit", "pretrained": True},
            "pretrained weights of 'test_vit'.*set `pretrained: false`",
        ),
        ({"backbone": "inception_v3", "image_size": 32}, "does not work on 32 × 32 pixels"),
        (
            {"backbone": "resnet10t", "image_size": 8, "fractional_pool": 0.9},
            "does not work on 8 × 8 pixels.*It may be for `fractional_pool`: leave that out",
        ),
        ({"fractional_pool": 1.2}, r"`fractional_pool` must lie in \(0, 1\), got 1.2. To leave it out"),
        ({"drop_connect": 1.0}, r"`drop_connect` must lie in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments(options, says, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")  # no name ends so
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(UserError, match=says):
        ImageClassifier(**{"backbone": "test_resnet", "num_classes": 3, **options})


def test_weights_of_another_architecture(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(UserError, match=r"of the .* tensors fit from .*vit.pth"):
        small(weights=tmp_path / "vit.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match=r"Cannot read weights from .*text\.pth"):
        small(weights=tmp_path / "text.pth")


# Loss and metrics


def test_losses_are_torch_s():
    torch.manual_seed(0)
    logits, targets = torch.randn(8, 3), torch.randint(0, 3, (8,))
    weights = [1.0, 2.0, 0.5]
    model = small(class_weights=weights, label_smoothing=0.1)
    expected = F.cross_entropy(logits, targets, torch.tensor(weights), label_smoothing=0.1)
    torch.testing.assert_close(model.loss(logits, targets), expected)
    soft = torch.softmax(torch.randn(8, 3), 1)
    torch.testing.assert_close(small().loss(logits, soft), -(soft * logits.log_softmax(1)).sum(1).mean())


def test_the_multi_label_loss():
    torch.manual_seed(0)
    logits, targets = torch.randn(8, 3), torch.randint(0, 2, (8, 3)).float()
    weights = torch.tensor([1.0, 2.0, 0.5])
    model = small(multi_label=True, class_weights=weights.tolist(), label_smoothing=0.2)
    smooth = targets * 0.8 + 0.1
    expected = -(weights * smooth * F.logsigmoid(logits) + (1 - smooth) * F.logsigmoid(-logits)).mean()
    torch.testing.assert_close(model.loss(logits, targets), expected)
    torch.testing.assert_close(model.probabilities(logits), logits.sigmoid())


def test_metrics_are_scikit_learn_s():
    torch.manual_seed(0)
    probabilities, targets = torch.randn(200, 12).softmax(1), torch.randint(0, 12, (200,))
    metrics = classification_metrics(12)
    for part in range(0, 200, 50):
        metrics.update(probabilities[part : part + 50], targets[part : part + 50])
    got = {name: float(value) for name, value in metrics.compute().items()}
    predicted = probabilities.argmax(1)
    assert got["acc"] == pytest.approx(float((predicted == targets).float().mean()))
    top = (probabilities.topk(5).indices == targets[:, None]).any(1)
    assert got["acc_top5"] == pytest.approx(float(top.float().mean()))
    assert got["f1"] == pytest.approx(f1_score(targets, predicted, average="macro"), abs=1e-6)
    assert got["auroc"] == pytest.approx(
        roc_auc_score(targets, probabilities.double(), multi_class="ovr"), abs=1e-5
    )
    confidence, bins = probabilities.max(1).values, 15
    number = (confidence * bins).long().clamp(max=bins - 1)
    right = (predicted == targets).float()
    gaps = [(confidence[number == b].sum() - right[number == b].sum()).abs() for b in range(bins)]
    assert got["ece"] == pytest.approx(float(torch.stack(gaps).sum()) / 200, abs=1e-5)


def test_multi_label_metrics_are_scikit_learn_s():
    torch.manual_seed(0)
    probabilities, targets = torch.rand(100, 4), torch.randint(0, 2, (100, 4))
    metrics = classification_metrics(4, multi_label=True)
    metrics.update(probabilities, targets)
    got = {name: float(value) for name, value in metrics.compute().items()}
    predicted = probabilities > 0.5
    assert got["acc"] == pytest.approx(float((predicted == targets).float().mean()))
    assert got["f1"] == pytest.approx(f1_score(targets, predicted, average="macro"), abs=1e-6)
    assert got["auroc"] == pytest.approx(roc_auc_score(targets, probabilities), abs=1e-5)


def test_auroc_leaves_out_what_it_is_not_defined_for():
    torch.manual_seed(0)
    probabilities, targets = torch.randn(60, 4).softmax(1), torch.randint(0, 3, (60,))  # class 3 never occurs
    metrics = classification_metrics(4)
    metrics.update(probabilities, targets)
    each = [roc_auc_score(targets == c, probabilities[:, c]) for c in range(3)]
    assert float(metrics.compute()["auroc"]) == pytest.approx(sum(each) / 3, abs=1e-6)
    hot = torch.randint(0, 2, (60, 4))
    hot[:, 3], hot[:, 2] = 0, 1  # never, always
    metrics = classification_metrics(4, multi_label=True)
    metrics.update(probabilities, hot)
    each = [roc_auc_score(hot[:, c], probabilities[:, c]) for c in range(2)]
    assert float(metrics.compute()["auroc"]) == pytest.approx(sum(each) / 2, abs=1e-6)


def test_top_5_only_where_it_says_something():
    assert "acc_top5" not in classification_metrics(9)
    assert "acc_top5" in classification_metrics(10)


# Training


@pytest.fixture
def data(folder):
    return ImageFolderDataModule(folder, batch_size=5, val_fraction=0.3, test_fraction=0.3)


def fit(model, data, **options):
    trainer = Trainer(**{**QUIET, "max_epochs": 2, **options})
    trainer.fit(model, datamodule=data)
    return trainer


def test_logged_validation_is_that_of_all_samples(data):
    seed_everything(0)
    model = small()
    trainer = fit(model, data)
    images, targets = (torch.cat(part) for part in zip(*data.val_dataloader(), strict=True))
    with torch.no_grad():
        logits = model.eval()(images)
    logged = trainer.callback_metrics
    assert float(logged["val/loss"]) == pytest.approx(float(F.cross_entropy(logits, targets)), rel=1e-4)
    assert float(logged["val/acc"]) == pytest.approx(float((logits.argmax(1) == targets).float().mean()))
    assert {"train/loss", "train/acc", "val/f1", "val/auroc", "val/ece"} <= set(logged)


def test_optimizer_and_schedule_are_callables(data):
    model = small(
        optimizer=lambda groups: SGD(groups, lr=0.5, weight_decay=0.1),
        schedule=lambda optimizer, steps: StepLR(optimizer, steps, 0.1),
    )
    trainer = fit(model, data)
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, SGD)
    assert [(g["name"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("decay", 0.1),
        ("no_decay", 0.0),
    ]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)  # after exactly the steps of the run


def test_the_default_schedule_spans_the_run(data):
    trainer = fit(small(), data, max_epochs=3)
    (config,) = trainer.lr_scheduler_configs
    assert config.interval == "step"
    assert isinstance(config.scheduler, Schedule)
    assert config.scheduler.last_epoch == trainer.global_step == trainer.estimated_stepping_batches


def test_endless_training_needs_an_end(data):
    with pytest.raises(UserError, match="Set `max_epochs` or `max_steps`"):
        fit(small(), data, max_epochs=-1)


def test_a_broken_optimizer_says_so(data):
    with pytest.raises(UserError, match="optimizer cannot be built: Invalid learning rate"):
        fit(small(optimizer=lambda groups: SGD(groups, lr=-1.0)), data)


def test_soft_targets_train(data):
    class Mixed(ImageClassifier):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            images, targets = batch
            soft = F.one_hot(targets, 3).float()
            return (images, 0.9 * soft + 0.1 * soft.flip(0)) if self.trainer.training else batch

    trainer = fit(Mixed("test_resnet", num_classes=3, in_chans=1), data)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert 0 <= float(trainer.callback_metrics["train/acc"]) <= 1


def test_multi_label_trains(folder):
    paths = sorted(folder.rglob("*.png"))
    rows = "\n".join(f"{p.relative_to(folder)},{p.parent.name}|{'ab'[i % 2]}" for i, p in enumerate(paths))
    (folder / "labels.csv").write_text(f"path,label\n{rows}\n")
    data = ImageFolderDataModule(folder, labels="labels.csv", batch_size=8)
    trainer = fit(small(num_classes=5, multi_label=True), data)
    assert {"val/acc", "val/f1", "val/auroc", "val/ece"} <= set(trainer.callback_metrics)


def test_other_classes_than_the_data_s_are_refused(data):
    with pytest.raises(UserError, match="`num_classes=4`, the data have 3 classes"):
        fit(small(num_classes=4), data)


def test_a_single_label_module_refuses_multi_label_data_and_the_other_way_round(data, folder):
    with pytest.raises(UserError, match="`multi_label=True`, the data have not"):
        fit(small(multi_label=True), data)


# Checkpoints


def test_a_checkpoint_is_enough_to_predict(data, tmp_path):
    model = small()
    trainer = fit(model, data)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    stored = torch.load(tmp_path / "whole.ckpt", weights_only=True)  # plain data
    assert stored["hyper_parameters"]["backbone"] == "test_resnet"
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True)
    assert loaded.preprocessing == data.preprocessing
    assert loaded.class_names == ["one", "two", "zero"]
    images, _ = next(iter(data.test_dataloader()))
    torch.testing.assert_close(loaded.eval().predict_step(images), model.eval().predict_step(images))


def test_a_checkpoint_of_pretrained_weights_fetches_none(tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=3, in_chans=1).state_dict(), tmp_path / "w.pth")
    model = small(weights=str(tmp_path / "w.pth"))
    trainer = fit(model, ThreeClasses())
    assert trainer.datamodule.preprocessing.normalization.mean == (0.5,)  # the backbone's, not the digits'
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    (tmp_path / "w.pth").unlink()
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True)
    assert loaded.normalization == model.normalization


def test_a_checkpoint_s_normalisation_goes_before_one_fitted_anew(data, tmp_path):
    trainer = fit(small(), data)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    other = ThreeClasses()
    again = Trainer(**QUIET)
    again.test(small(), datamodule=other, ckpt_path=tmp_path / "whole.ckpt", verbose=False)
    assert other.preprocessing.normalization.mean == data.preprocessing.normalization.mean


def test_a_checkpoint_of_another_module_is_refused(data, tmp_path):
    trainer = fit(ImageClassifier("test_vit", num_classes=3, in_chans=1, image_size=32), data)
    trainer.save_checkpoint(tmp_path / "vit.ckpt")
    with pytest.raises(UserError, match=r"is of test_vit, not of this ImageClassifier with test_resnet"):
        Trainer(**QUIET).test(small(), datamodule=data, ckpt_path=tmp_path / "vit.ckpt", verbose=False)


def test_trainer_predict_gives_probabilities_on_both_paths(folder):
    model = small()
    for in_memory in (True, False):
        data = ImageFolderDataModule(folder, batch_size=8, in_memory=in_memory, num_workers=0)
        data.setup("fit")
        probabilities = torch.cat(Trainer(**QUIET).predict(model, data.train_eval_dataloader()))
        assert probabilities.shape == (len(data.splits["train"]), 3)
        torch.testing.assert_close(probabilities.sum(1), torch.ones(len(probabilities)))


class ThreeClasses(DigitsDataModule):
    """The digits 0 to 2."""

    class_names = ["0", "1", "2"]  # noqa: RUF012

    def load_samples(self):
        samples = super().load_samples()["train"]
        return {"train": samples.subset((samples.targets < 3).nonzero().flatten()[:60])}


def test_interrupted_equals_uninterrupted_bit_for_bit(data, tmp_path):
    def run(path=None):
        model = small()
        kept = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        options = {**QUIET, "enable_checkpointing": True}
        Trainer(**options, max_epochs=4, callbacks=[kept]).fit(model, datamodule=data, ckpt_path=path)
        return model.state_dict()

    seed_everything(7)
    whole = run()
    seed_everything(7)
    torch.randn(99)  # whatever was drawn in between
    resumed = run(tmp_path / "epoch=1.ckpt")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize(
    "backbone", ["test_efficientnet", "mobilenetv3_small_050", "test_resnet", "test_vit"]
)
def test_a_fresh_network_does_not_claim_to_know(backbone):
    seed_everything(0, verbose=False)
    model = ImageClassifier(backbone, in_chans=1)
    images, targets = torch.randn(64, 1, 64, 64), torch.arange(64) % 10
    assert F.cross_entropy(model(images), targets).item() == pytest.approx(2.303, abs=0.3)
    inputs = model.head.in_features
    assert model.head.weight.std().item() <= inputs**-0.5


def test_a_fresh_head_on_pretrained_features_does_not_claim_to_know(tmp_path):
    seed_everything(0, verbose=False)
    save_file(
        timm.create_model("test_efficientnet", num_classes=7).state_dict(), tmp_path / "seven.safetensors"
    )
    model = ImageClassifier("test_efficientnet", num_classes=10, weights=tmp_path / "seven.safetensors")
    own = timm.create_model("test_efficientnet", num_classes=10).get_classifier()
    assert model.head.weight.std().item() < own.weight.std().item() / 4


def test_a_head_that_was_loaded_is_as_it_was(tmp_path):
    whole = timm.create_model("test_efficientnet", num_classes=3)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    model = ImageClassifier("test_efficientnet", num_classes=3, weights=tmp_path / "whole.safetensors")
    assert torch.equal(model.head.weight, whole.get_classifier().weight)


@pytest.mark.parametrize(("num_classes", "kept"), [(3, True), (4, False)])
def test_the_head_of_timm_s_weights_is_kept_where_the_classes_are_theirs(num_classes, kept, monkeypatch):
    create, made = timm.create_model, []

    def fetched(name, *, pretrained, **options):  # what the hub would give
        assert pretrained
        made.append(create(name, pretrained_cfg_overlay={"num_classes": 3}, **options))
        made.append(made[0].get_classifier().weight.clone())
        return made[0]

    monkeypatch.setattr(timm, "create_model", fetched)
    model = ImageClassifier("test_efficientnet", num_classes=num_classes, pretrained=True)
    assert torch.equal(model.head.weight, made[1]) == kept
