import copy
import math

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn import functional as F

from lightning_recipes import EnsembleClassifier, ImageClassifier
from lightning_recipes.datamodules import DigitsDataModule, ImageFolderDataModule
from lightning_recipes.ensembles import pool_checkpoints
from lightning_recipes.scores import accuracy, brier, ece, fit_temperature, nll, temper
from lightning_recipes.utils.errors import UserError

from ..contract.toys import QUIET

IMAGES = torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))
MIXED = ("test_resnet", "test_vit", "test_resnet")


def member(backbone="test_resnet", seed=0, **options):
    """A classifier whose head is not zero, as a fresh transformer's is."""
    seed_everything(seed, verbose=False)
    model = ImageClassifier(backbone, **{"num_classes": 3, "in_chans": 1, "image_size": 32, **options})
    nn.init.normal_(model.head.weight)
    return model.eval()


def mixed(**options):
    return EnsembleClassifier([member(b, i) for i, b in enumerate(MIXED)], **options)


class Averager(nn.Module):
    """No LightningModule: the mean of each third of the image, as logits."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images):
        return self.scale * images.flatten(1)[:, :1023].unflatten(1, (3, 341)).mean(2)


class OwnModule(LightningModule):
    """A user's own, which saves what it needs."""

    def __init__(self, width: int, num_classes: int = 3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(1024, width), nn.Linear(width, num_classes))

    def forward(self, images):
        return self.net(images)


def checkpoint(model, path, **changes):
    """What a Trainer would have written."""
    trainer = Trainer(**QUIET)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    if changes:
        stored = torch.load(path, weights_only=True)
        stored |= changes
        torch.save({key: value for key, value in stored.items() if value is not None}, path)
    return path


@pytest.fixture
def data(folder):
    return ImageFolderDataModule(folder, batch_size=8, val_fraction=0.3, test_fraction=0.3)


# What it says


def test_it_averages_probabilities():
    ensemble = mixed()
    each = torch.stack([m(IMAGES).softmax(1) for m in ensemble.members])
    torch.testing.assert_close(ensemble.member_probabilities(IMAGES), each)
    torch.testing.assert_close(ensemble.predict_step(IMAGES), each.mean(0))
    torch.testing.assert_close(ensemble(IMAGES), each.mean(0).log())
    torch.testing.assert_close(ensemble.predict_step((IMAGES, torch.zeros(6))), each.mean(0))


def test_the_temperature_works_on_the_mean():
    plain, sharp = mixed(), mixed(temperature=0.5)
    expected = temper(plain.predict_step(IMAGES), 0.5)
    torch.testing.assert_close(sharp.predict_step(IMAGES), expected)
    torch.testing.assert_close(sharp(IMAGES).exp().sum(1), torch.ones(6))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_stacked_or_not_it_says_the_same():
    torch.testing.assert_close(
        mixed(stacked=True)(IMAGES), mixed(stacked=False)(IMAGES), rtol=1e-4, atol=1e-5
    )


def test_by_default_a_cpu_runs_the_loop():
    ensemble = mixed()
    ensemble(IMAGES)
    assert ensemble._stack is None


def test_members_stay_frozen_in_eval_mode():
    ensemble = EnsembleClassifier([member().train(), member(seed=1).train()])
    before = copy.deepcopy(ensemble.state_dict())
    ensemble.train()
    assert ensemble.training
    ensemble(IMAGES)
    assert not any(module.training for module in ensemble.members.modules())
    assert all(torch.equal(value, before[name]) for name, value in ensemble.state_dict().items())
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())


def test_multi_label_averages_sigmoids():
    members = [member(seed=seed, multi_label=True) for seed in (0, 1)]
    ensemble = EnsembleClassifier(members)
    expected = torch.stack([m(IMAGES).sigmoid() for m in members]).mean(0)
    torch.testing.assert_close(ensemble.predict_step(IMAGES), expected)
    with pytest.raises(UserError, match=r"of one label an image.*Use `test`"):
        ensemble.report([(IMAGES, torch.zeros(6, 3))])


def test_any_module_is_a_member_and_its_output_is_logits():
    ensemble = EnsembleClassifier([Averager(), Averager(3.0), OwnModule(4)])
    each = torch.stack([m(IMAGES).softmax(1) for m in ensemble.members])
    torch.testing.assert_close(ensemble.predict_step(IMAGES), each.mean(0))
    assert ensemble.class_names == ["0", "1", "2"]


# With a Trainer


def test_it_is_measured_like_a_classifier(data):
    trainer = Trainer(**QUIET)
    alone = member()
    (one,) = trainer.test(alone, datamodule=data, verbose=False)
    (pool,) = trainer.test(EnsembleClassifier([member()]), datamodule=data, verbose=False)
    assert pool.keys() == one.keys()
    assert pool == pytest.approx(one, abs=1e-6)
    (again,) = trainer.test(EnsembleClassifier([alone, alone]), datamodule=data, verbose=False)
    assert again == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_its_metrics_are_those_of_its_probabilities(data, stage):
    trainer, ensemble = Trainer(**QUIET), mixed(temperature=2.0)
    run = getattr(trainer, stage)
    (result,) = run(ensemble, datamodule=data, verbose=False)
    (again,) = run(ensemble, datamodule=data, verbose=False)
    assert again == result
    loader = data.val_dataloader() if stage == "validate" else data.test_dataloader()
    batches = list(loader)
    p = torch.cat([ensemble.predict_step(batch) for batch in batches])
    y = torch.cat([targets for _, targets in batches])
    name = "val" if stage == "validate" else "test"
    expected = {"loss": nll(p, y), "acc": accuracy(p, y), "ece": ece(p, y)}
    assert {key: result[f"{name}/{key}"] for key in expected} == pytest.approx(expected, abs=1e-5)
    assert {f"{name}/f1", f"{name}/auroc"} <= result.keys()


def test_a_test_that_was_cut_off_leaves_nothing_behind(data):
    class Stop(Callback):
        def on_test_batch_end(self, *arguments):
            raise RuntimeError("cut off")

    ensemble = mixed()
    (expected,) = Trainer(**QUIET).test(mixed(), datamodule=data, verbose=False)
    with pytest.raises(RuntimeError, match="cut off"):
        Trainer(**QUIET, callbacks=[Stop()]).test(ensemble, datamodule=data, verbose=False)
    (result,) = Trainer(**QUIET).test(ensemble, datamodule=data, verbose=False)
    assert result == pytest.approx(expected)


def test_multi_label_is_measured(folder):
    paths = sorted(folder.rglob("*.png"))
    rows = "\n".join(f"{p.relative_to(folder)},{p.parent.name}|{'ab'[i % 2]}" for i, p in enumerate(paths))
    (folder / "labels.csv").write_text(f"path,label\n{rows}\n")
    data = ImageFolderDataModule(folder, labels="labels.csv", batch_size=8)
    alone = member(num_classes=5, multi_label=True)
    (one,) = Trainer(**QUIET).validate(alone, datamodule=data, verbose=False)
    (pool,) = Trainer(**QUIET).validate(EnsembleClassifier([alone]), datamodule=data, verbose=False)
    assert pool == pytest.approx(one, abs=1e-5)


def test_it_refuses_to_be_trained(data):
    class Training(EnsembleClassifier):
        def training_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return None

    with pytest.raises(UserError, match="An ensemble is not trained"):
        Trainer(**QUIET, max_epochs=1).fit(Training([member()]), datamodule=data)


def test_it_refuses_other_data(data, folder):
    with pytest.raises(UserError, match="knows 3 classes, the data have 10"):
        Trainer(**QUIET).test(mixed(), datamodule=DigitsDataModule(), verbose=False)
    with pytest.raises(UserError, match="`multi_label=True`, the data have not"):
        Trainer(**QUIET).test(EnsembleClassifier([member(multi_label=True)]), datamodule=data, verbose=False)
    alone = member()
    alone.preprocessing = data.preprocessing
    other = ImageFolderDataModule(folder, image_size=64)
    with pytest.raises(UserError, match=r"`image_size: 32`, the data have 64. Set `data.image_size` to 32"):
        Trainer(**QUIET).test(EnsembleClassifier([alone]), datamodule=other, verbose=False)


def test_classes_that_nobody_knows(data):
    with pytest.raises(UserError, match=r"how many classes they know\. Give `class_names`"):
        Trainer(**QUIET).test(EnsembleClassifier([Averager()]), datamodule=data, verbose=False)
    named = EnsembleClassifier([Averager()], class_names=data.class_names)
    (result,) = Trainer(**QUIET).test(named, datamodule=data, verbose=False)
    assert math.isfinite(result["test/loss"])
    assert EnsembleClassifier([Averager()]).predict_step(IMAGES).shape == (6, 3)


# Files


def test_a_file_is_enough_to_predict(data, tmp_path):
    members = [member(b, i) for i, b in enumerate(MIXED)]
    for model in members:
        model.preprocessing, model.class_names = data.preprocessing, data.class_names
    ensemble = EnsembleClassifier(members, temperature=1.7)
    ensemble.save(tmp_path / "saved.ckpt")
    trainer = Trainer(**QUIET)
    trainer.test(ensemble, datamodule=data, verbose=False)
    trainer.save_checkpoint(tmp_path / "trainer.ckpt")
    for name in ("saved", "trainer"):
        path = tmp_path / f"{name}.ckpt"
        loaded = EnsembleClassifier.load_from_checkpoint(path, weights_only=True)
        torch.testing.assert_close(loaded(IMAGES), ensemble(IMAGES))
        assert loaded.temperature == 1.7
        assert loaded.class_names == data.class_names == ["one", "two", "zero"]
        assert loaded.preprocessing == data.preprocessing
        assert loaded.normalization == data.preprocessing.normalization
        assert loaded.names == ensemble.names
        fresh = mixed()
        (result,) = Trainer(**QUIET).test(fresh, datamodule=data, ckpt_path=path, verbose=False)
        assert fresh.temperature == 1.7
        assert result == pytest.approx({k: float(v) for k, v in trainer.callback_metrics.items()})


def test_checkpoints_of_every_kind_pool(data, tmp_path):
    one, two, own = member(), member("test_vit", 1), OwnModule(5)
    one.class_names = two.class_names = ["x", "y", "z"]
    paths = [checkpoint(model, tmp_path / f"{i}.ckpt") for i, model in enumerate((one, two))]
    own_path = checkpoint(
        own, tmp_path / "own.ckpt", lightning_recipes={"class_path": f"{__name__}.OwnModule"}
    )
    pair = EnsembleClassifier.from_checkpoints(paths)
    pair.temperature = 3.0
    pair.save(tmp_path / "pair.ckpt")
    whole = EnsembleClassifier.from_checkpoints([own_path, tmp_path / "pair.ckpt"])
    expected = torch.stack([m(IMAGES).softmax(1) for m in (own, one, two)]).mean(0)
    torch.testing.assert_close(whole.predict_step(IMAGES), expected)
    assert whole.temperature == 1.0
    assert whole.class_names == ["x", "y", "z"]
    assert [name.rpartition("/")[2] for name in whole.names] == ["own", "0", "1"]
    whole.save(tmp_path / "whole.ckpt")
    again = EnsembleClassifier.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True)
    torch.testing.assert_close(again.predict_step(IMAGES), expected)


def test_a_pool_of_checkpoints_is_the_file_of_the_ensemble(tmp_path):
    models = [member(seed=seed) for seed in range(2)]
    stored = [torch.load(checkpoint(m, tmp_path / "m.ckpt"), weights_only=True) for m in models]
    torch.save(pool_checkpoints(stored, ["a", "b"], temperature=2.0), tmp_path / "pool.ckpt")
    loaded = EnsembleClassifier.load_from_checkpoint(tmp_path / "pool.ckpt", weights_only=True)
    loaded.save(tmp_path / "saved.ckpt")
    pool, saved = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("pool", "saved"))
    assert saved["hyper_parameters"] == pool["hyper_parameters"]
    assert saved["lightning_recipes"] == pool["lightning_recipes"]
    assert saved.keys() == pool.keys()
    assert saved["state_dict"].keys() == pool["state_dict"].keys()
    assert all(torch.equal(value, pool["state_dict"][name]) for name, value in saved["state_dict"].items())


def test_a_file_does_not_hold_the_stack(tmp_path):
    ensemble = EnsembleClassifier([member(seed=seed) for seed in range(4)], stacked=True)
    ensemble.subset([1]).save(tmp_path / "one.ckpt")
    ensemble(IMAGES)
    ensemble.subset([1]).save(tmp_path / "of_four.ckpt")
    sizes = [(tmp_path / f"{name}.ckpt").stat().st_size for name in ("one", "of_four")]
    assert sizes[0] == sizes[1]


def test_build_makes_what_a_checkpoint_cannot_name(tmp_path):
    own = OwnModule(5)
    path = checkpoint(own, tmp_path / "own.ckpt")
    with pytest.raises(UserError, match=r"own cannot be rebuilt from its checkpoint.*`Ens.*build=\.\.\."):
        EnsembleClassifier.from_checkpoints([path])
    ensemble = EnsembleClassifier.from_checkpoints([path, path], build=lambda: OwnModule(5))
    torch.testing.assert_close(ensemble.predict_step(IMAGES), own(IMAGES).softmax(1))
    with pytest.raises(UserError, match=r"weights of .*own are not of its OwnModule: 3 of 4 tensors"):
        EnsembleClassifier.from_checkpoints([path], build=lambda: OwnModule(6))
    gone = checkpoint(own, tmp_path / "gone.ckpt", lightning_recipes={"class_path": "nowhere.Net"})
    with pytest.raises(UserError, match="No module named 'nowhere'"):
        EnsembleClassifier.from_checkpoints([gone])
    assert EnsembleClassifier.from_checkpoints([gone], build=lambda: OwnModule(5))


def test_what_cannot_be_rebuilt_cannot_be_saved(tmp_path):
    class Local(OwnModule):
        pass

    class Odd(nn.Module):
        pass

    for model, why in (
        (Averager(), None),
        (Local(3), "its class cannot be imported"),
        (OwnModule(3), None),
        (Odd(), "its class cannot be imported"),
    ):
        ensemble = EnsembleClassifier([model])
        if why is None:
            ensemble.save(tmp_path / "fine.ckpt")
            continue
        with pytest.raises(UserError, match=f"cannot be saved: member 0, a .*: {why}"):
            ensemble.save(tmp_path / "not.ckpt")
    unsaved = OwnModule(3)
    unsaved._hparams.clear()
    with pytest.raises(UserError, match="its hyperparameters lack width"):
        EnsembleClassifier([unsaved]).save(tmp_path / "not.ckpt")
    odd = OwnModule(3)
    odd.hparams["width"] = torch.device("cpu")
    with pytest.raises(UserError, match="not plain data"):
        EnsembleClassifier([odd]).save(tmp_path / "not.ckpt")
    assert not (tmp_path / "not.ckpt").exists()


@pytest.mark.parametrize("normalize", ["mean_image", "whiten"])
def test_a_file_keeps_the_members_fitted_normalisation(normalize, tmp_path):
    data = DigitsDataModule(image_size=8, normalize=normalize, augment="none", limit_per_class=10)
    data.setup("fit")
    members = [member(num_classes=10, seed=seed) for seed in range(2)]
    for model in members:
        model.preprocessing = data.preprocessing
    ensemble = EnsembleClassifier(members, class_names=data.class_names)
    (expected,) = Trainer(**QUIET).test(ensemble, datamodule=data, verbose=False)
    ensemble.save(tmp_path / "pool.ckpt")
    loaded = EnsembleClassifier.load_from_checkpoint(tmp_path / "pool.ckpt", weights_only=True)
    assert loaded.preprocessing == data.preprocessing
    other = DigitsDataModule(image_size=8, augment="none")
    (result,) = Trainer(**QUIET).test(loaded, datamodule=other, verbose=False)
    assert result == pytest.approx(expected)
    assert other.preprocessing == data.preprocessing


# Bad input


def test_members_that_do_not_go_together(data):
    named, renamed, prepared, other = (member(seed=seed) for seed in range(4))
    named.class_names, renamed.class_names = ["a", "b", "c"], ["c", "b", "a"]
    prepared.preprocessing = data.preprocessing
    other.preprocessing = copy.copy(data.preprocessing)
    object.__setattr__(other.preprocessing, "image_size", 64)
    for members, says in (
        ([], "at least one member, got none"),
        ([member(), member(num_classes=4)], "member 0 has 3 classes, member 1 has 4"),
        ([named, renamed], "name their classes differently: 'a' against 'c'"),
        ([prepared, other], "`image_size` is 32 against 64"),
        ([member(), member(multi_label=True)], "member 1 gives several labels an image, member 0 gives one"),
    ):
        with pytest.raises(UserError, match=says):
            EnsembleClassifier(members)


def test_arguments_out_of_bounds():
    with pytest.raises(UserError, match="`temperature` must be above 0, got 0"):
        EnsembleClassifier([member()], temperature=0)
    with pytest.raises(UserError, match="`memory_limit_gib` must be above 0, got -1"):
        EnsembleClassifier([member()], memory_limit_gib=-1)


def test_bad_checkpoints(tmp_path):
    one, four = member(), member(num_classes=4)
    fine = checkpoint(one, tmp_path / "fine.ckpt")
    empty = checkpoint(one, tmp_path / "empty.ckpt", state_dict=None)
    other = checkpoint(four, tmp_path / "four.ckpt")
    for paths, says in (
        ([], "at least one member"),
        ([fine, empty], "empty is a checkpoint without weights"),
        ([fine, other], "fine has 3 classes, .*four has 4"),
        ([tmp_path / "none.ckpt"], "which is not there"),
    ):
        with pytest.raises(UserError, match=says):
            EnsembleClassifier.from_checkpoints(paths)
    EnsembleClassifier([member("test_vit")]).save(tmp_path / "vit.ckpt")
    with pytest.raises(UserError, match="not of this ensemble's 3 members"):
        Trainer(**QUIET).predict(mixed(), [IMAGES], ckpt_path=tmp_path / "vit.ckpt")


def test_outputs_that_are_no_logits():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    with pytest.raises(UserError, match=r"must return logits \(B, K\).*member 1: tuple"):
        EnsembleClassifier([Averager(), Pair()])(IMAGES)
    with pytest.raises(UserError, match=r"member 0: \(6, 1, 32, 32\)"):
        EnsembleClassifier([nn.Identity()])(IMAGES)


# What it is worth


def batches(samples=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images, targets = torch.randn(samples, 1, 32, 32, generator=generator), torch.arange(samples) % 3
    return list(zip(images.split(16), targets.split(16), strict=True))


def test_the_report_fits_the_temperature_on_the_pooled_validation():
    ensemble = mixed()
    test, val = batches(), batches(seed=1)
    report = ensemble.report(test, validation=val, resamples=100)
    p, y = ensemble.collect(test)
    assert p.shape == (3, 60, 3)
    q, z = ensemble.collect(val)
    assert report.temperature == fit_temperature(q.mean(0), z)
    assert ensemble.temperature == 1  # a report changes nothing
    *members, pooled, tempered = report.rows
    assert [row.name for row in members] == ensemble.names
    assert pooled.nll.value == pytest.approx(nll(p.mean(0), y), abs=1e-6)
    assert tempered.nll.value == pytest.approx(nll(temper(p.mean(0), report.temperature), y), abs=1e-6)
    assert members[1].brier.value == pytest.approx(brier(p[1], y))
    assert ensemble.report((p, y), validation=(q, z), resamples=100) == report
    ensemble.temperature = report.temperature
    assert F.nll_loss(torch.cat([ensemble(x) for x, _ in test]), y) == pytest.approx(
        tempered.nll.value, abs=1e-5
    )
    assert ensemble.report((p, y), resamples=100) == report


def test_without_validation_there_is_no_temperature():
    report = mixed().report(batches(), resamples=10)
    assert report.temperature is None
    assert [row.name for row in report.rows][3:] == ["ensemble"]
    with pytest.raises(UserError, match="gave no batch"):
        mixed().report([])


def test_a_subset():
    ensemble = mixed(temperature=2.0)
    smaller = ensemble.subset([0, 2])
    assert smaller.names == ["member 0", "member 2"]
    assert smaller.temperature == 1
    expected = ensemble.member_probabilities(IMAGES)[[0, 2]]
    torch.testing.assert_close(smaller.member_probabilities(IMAGES), expected)


# What a user gives that is not quite what was meant


def test_names_that_do_not_go_with_the_members():
    with pytest.raises(UserError, match="`class_names` has 2 classes, member 0 has 3"):
        EnsembleClassifier([member()], class_names=["a", "b"])


def test_names_may_be_given_when_a_file_is_loaded(tmp_path):
    EnsembleClassifier([member(), member(seed=1)]).save(tmp_path / "pool.ckpt")
    names = ["x", "y", "z"]
    loaded = EnsembleClassifier.load_from_checkpoint(tmp_path / "pool.ckpt", class_names=names)
    assert loaded.class_names == names


def test_files_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / f"version_{n}" / "checkpoints" / "epoch=9.ckpt" for n in range(2)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        checkpoint(member(seed=seed), path)
    names = EnsembleClassifier.from_checkpoints(paths).names
    assert names == ["version_0/checkpoints/epoch=9", "version_1/checkpoints/epoch=9"]


class Weighted(OwnModule):
    """Its hyperparameter `weights` is no file of weights."""

    def __init__(self, weights: list[float] | None = None, width: int = 4):
        super().__init__(width)
        self.save_hyperparameters()
        self.scale = torch.tensor(weights or [1.0, 1.0, 1.0])

    def forward(self, images):
        return super().forward(images) * self.scale


def test_a_users_own_hyperparameter_of_that_name_is_kept(tmp_path):
    ensemble = EnsembleClassifier([Weighted([5.0, 1.0, 1.0])])
    ensemble.save(tmp_path / "own.ckpt")
    loaded = EnsembleClassifier.load_from_checkpoint(tmp_path / "own.ckpt")
    assert torch.equal(loaded.predict_step(IMAGES), ensemble.predict_step(IMAGES))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_targets_of_any_integer_type(dtype):
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    ensemble = mixed()
    expected = ensemble.report([(IMAGES, targets)])
    assert ensemble.report(((IMAGES, targets.to(dtype)),)) == expected
    assert ensemble.report(ensemble.collect([(IMAGES, targets)])) == expected


class Refusing(OwnModule):
    def __init__(self, width: int = 4):
        if width == 4:
            raise ValueError("four is refused")
        super().__init__(width)


def test_build_is_asked_when_the_class_refuses(tmp_path):
    path = checkpoint(Refusing(5), tmp_path / "own.ckpt")
    stored = torch.load(path, weights_only=True)
    stored["hyper_parameters"]["width"] = 4
    stored["lightning_recipes"] = {"class_path": f"{__name__}.Refusing"}
    torch.save(stored, path)
    with pytest.raises(UserError, match="cannot be rebuilt from its checkpoint: four is refused"):
        EnsembleClassifier.from_checkpoints([path])
    assert len(EnsembleClassifier.from_checkpoints([path], build=lambda: OwnModule(5)).members) == 1


def test_paths_are_not_modules():
    with pytest.raises(UserError, match="got the path 'a"):
        EnsembleClassifier(["a.ckpt"])
    with pytest.raises(
        UserError, match=r"`paths` must be a list of checkpoints, got 'a.ckpt'. Give \['a.ckpt'\]"
    ):
        EnsembleClassifier.from_checkpoints("a.ckpt")


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], ["a"]])
def test_names_that_do_not_go_with_the_logits(names):
    ensemble = EnsembleClassifier([Averager()], class_names=names)
    with pytest.raises(UserError, match=f"logits of 3 classes, but `class_names` has {len(names)}"):
        ensemble.predict_step(IMAGES)


def test_files_that_are_no_whole_checkpoints(tmp_path):
    (tmp_path / "empty.ckpt").touch()
    whole = checkpoint(member(), tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    for path in ("empty.ckpt", "cut.ckpt"):
        with pytest.raises(UserError, match=f"{path} is empty or cut off"):
            EnsembleClassifier.from_checkpoints([tmp_path / path])
    with pytest.raises(UserError, match=r"a folder. Give its files: .*\*\.ckpt"):
        EnsembleClassifier.from_checkpoints([tmp_path])
