"""Mixing in the loaders: what a batch holds, when, and on which side."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F

from lightning_recipes import ImageClassifier
from lightning_recipes.datamodules import Augmentation, DigitsDataModule, Mixing
from lightning_recipes.datamodules.batches import BatchPlan, DecodingLoader, MemoryLoader
from lightning_recipes.datamodules.finish import Finish
from lightning_recipes.datamodules.samples import ArrayReader, Samples
from lightning_recipes.preprocessing import Normalization, Preprocessing
from lightning_recipes.utils.errors import UserError

PREPROCESSING = Preprocessing(1, 8, 1.0, Normalization((0.3,), (0.4,)))
BOTH = Mixing(mixup=0.3, cutmix=1.0)
ALL = Augmentation(lighting=0.1, cutout=0.5)


@pytest.fixture
def samples(digits):
    return Samples(digits[0][:, None], digits[1], ArrayReader(1))


def memory(samples, mixing, augmentation=ALL, *, size=30, batch_size=7, seed=4, epoch=0, rank=0, world=1):
    plan = BatchPlan(size, batch_size, shuffle=True, seed=seed, world_size=world, rank=rank)
    plan.set_epoch(epoch)
    return MemoryLoader(
        samples.load(8, 1.0),
        samples.targets,
        plan,
        PREPROCESSING,
        augmentation,
        finish=finish(mixing, augmentation),
    )


def finish(mixing, augmentation=ALL):
    return Finish(PREPROCESSING, augmentation, mixing, torch.tensor([[0.1]]), 3)


def decoding(samples, mixing, *, epoch=0, **options):
    plan = BatchPlan(30, 7, shuffle=True, seed=4)
    plan.set_epoch(epoch)
    return DecodingLoader(samples, plan, PREPROCESSING, ALL, finish=finish(mixing), **options)


def same(first, second):
    torch.testing.assert_close(list(first), list(second), rtol=0, atol=0)


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.2), Mixing(cutmix=1.0), None])
def test_squares_are_cut_and_pasted_before_a_matrix_takes_the_places_away(samples, mixing):
    matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    batches = []
    for normalization in (Normalization((0.3,), (0.4,)), Normalization((0.3,), (0.4,), matrix)):
        preprocessing = Preprocessing(1, 8, 1.0, normalization)
        last = Finish(preprocessing, ALL, mixing, torch.tensor([[0.1]]), 3)
        images, targets = samples.load(8, 1.0)[:7], samples.targets[:7]
        batches.append(last(images, targets, torch.Generator().manual_seed(4), 0))
    (plain, soft), (rotated, same_soft) = batches
    assert torch.equal(rotated.flatten(1), plain.flatten(1) @ matrix)
    assert torch.equal(soft, same_soft)


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.2), Mixing(cutmix=1.0), BOTH, None])
@pytest.mark.parametrize("workers", [0, 2])
def test_both_loaders_make_the_same_batches(samples, mixing, workers):
    for epoch in (0, 3):
        fast = memory(samples, mixing, epoch=epoch)
        same(fast, decoding(samples, mixing, epoch=epoch, num_workers=workers))


def test_the_batches_depend_on_seed_epoch_and_rank_alone(samples):
    state = torch.get_rng_state()
    same(memory(samples, BOTH), memory(samples, BOTH))
    assert torch.equal(torch.get_rng_state(), state)
    everywhere = [
        next(iter(memory(samples, BOTH, batch_size=4, world=2, **options)))[0].sum().item()
        for options in ({}, {"seed": 5}, {"epoch": 1}, {"rank": 1})
    ]
    assert len(set(everywhere)) == 4


@pytest.mark.parametrize("seen", [1, 3])
def test_a_resumed_epoch_goes_on_with_the_same_batches(samples, seen):
    whole, cut = list(memory(samples, BOTH, epoch=2)), memory(samples, BOTH, epoch=2)
    iterator = iter(cut)
    for _ in range(seen):
        next(iterator)
    resumed = memory(samples, BOTH, epoch=2)
    resumed.load_state_dict(cut.state_dict())
    same(resumed, whole[seen:])


@pytest.mark.parametrize("make", [memory, decoding])
def test_mixing_ends_with_the_epoch_that_is_named(samples, make):
    mixing = Mixing(mixup=0.2, cutmix=1.0, off_epoch=2)
    same(make(samples, mixing, epoch=1), make(samples, BOTH_02, epoch=1))
    for images, targets in make(samples, BOTH_02, epoch=1):
        assert not torch.equal(targets, targets.round())
        assert images.shape[1:] == (1, 8, 8)
    for (images, soft), (plain, hard) in zip(
        make(samples, mixing, epoch=2), make(samples, None, epoch=2), strict=True
    ):
        assert torch.equal(images, plain)
        assert torch.equal(soft, F.one_hot(hard, 3).float())


BOTH_02 = Mixing(mixup=0.2, cutmix=1.0)


def kinds(mixing, many=300):
    """Return how each of many batches was mixed: images of one value each show it."""
    images = torch.arange(8).view(8, 1, 1, 1).expand(8, 1, 16, 16).float()
    out = []
    for seed in range(many):
        mixed, soft = mixing(
            images, torch.eye(8), num_classes=8, epoch=0, generator=torch.Generator().manual_seed(seed)
        )
        torch.testing.assert_close(
            mixed.mean((1, 2, 3)), soft @ torch.arange(8.0)
        )  # shares of the area, or λ
        assert ((soft > 0).sum(1) <= 2).all()
        out.append("cutmix" if (mixed.flatten(1).std(1) > 0.01).any() else "mixup")
    return out


def test_each_batch_takes_one_kind_either_as_often():
    assert set(kinds(Mixing(mixup=1.0), 30)) == {"mixup"}
    assert set(kinds(Mixing(cutmix=1.0), 30)) == {"cutmix"}
    share = kinds(Mixing(mixup=1.0, cutmix=1.0)).count("cutmix") / 300
    assert share == pytest.approx(0.5, abs=4 * 0.5 / 300**0.5)


def test_each_sample_has_a_share_and_a_partner_of_its_own():
    _, soft = Mixing(mixup=1.0)(
        torch.zeros(64, 1, 2, 2),
        torch.eye(64),
        num_classes=64,
        epoch=0,
        generator=torch.Generator().manual_seed(0),
    )
    own = soft.diagonal()
    assert len(own.unique()) == 64
    partners = (soft - own.diag()).argmax(1)
    assert len(partners.unique()) == 64
    assert not (partners == torch.arange(64)).any()


def test_several_labels_are_mixed_as_they_are():
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    _, soft = Mixing(mixup=1.0)(
        torch.zeros(2, 1, 2, 2), targets, num_classes=3, epoch=0, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(soft[:, 1], torch.ones(2))
    assert ((soft[:, 0] > 0) & (soft[:, 0] < 1)).all()


def test_only_training_batches_are_mixed():
    data = DigitsDataModule(augment="none", mix=Mixing(mixup=1.0))
    data.setup("fit")
    images, targets = next(iter(data.train_dataloader()))
    assert targets.shape == (64, 10)
    assert targets.dtype == torch.float32
    assert images.dtype == torch.float32
    plain = DigitsDataModule(augment="none")
    plain.setup("fit")
    for name in ("val_dataloader", "test_dataloader", "train_eval_dataloader"):
        same(getattr(data, name)(), getattr(plain, name)())
    assert next(iter(plain.train_dataloader()))[1].dtype == torch.int64


@pytest.mark.parametrize("weights", [None, [3.0, 0.5, 1.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_an_unmixed_batch_is_the_same_before_and_after_the_end(weights, smoothing):
    # With hard targets torch would divide by the weights of the batch, with soft ones by its size.
    model = ImageClassifier(
        "test_resnet", num_classes=3, in_chans=1, class_weights=weights, label_smoothing=smoothing
    )
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 3), torch.tensor([0, 0, 1, 2, 0, 1])
    images, generator = torch.zeros(6, 1, 2, 2), torch.Generator().manual_seed(0)
    options = {"num_classes": 3, "generator": generator}
    _, after = Mixing(mixup=0.2, off_epoch=1)(images, targets, epoch=1, **options)
    _, before = Mixing(mixup=1e-9)(images, after, epoch=0, **options)  # λ is 0 or 1: whole samples
    order = [int((after == row).all(1).nonzero()[0]) for row in before]
    assert sorted(set(order)) != order  # some were swapped, none was blended
    torch.testing.assert_close(
        model.loss(logits, before),
        torch.stack([model.loss(logits[[i]], before[[i]]) for i in range(6)]).mean(),
    )
    torch.testing.assert_close(
        model.loss(logits, after), torch.stack([model.loss(logits[[i]], after[[i]]) for i in range(6)]).mean()
    )


def test_a_classifier_trains_on_mixed_batches():
    seen = []

    class Watched(ImageClassifier):
        def training_step(self, batch, batch_idx):
            seen.append((self.current_epoch, batch[1]))
            return super().training_step(batch, batch_idx)

    data = DigitsDataModule(limit_per_class=4, batch_size=20, mix=Mixing(mixup=0.2, cutmix=1.0, off_epoch=1))
    model = Watched("test_resnet", num_classes=10, in_chans=1, image_size=32)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    assert {epoch for epoch, _ in seen} == {0, 1}
    for epoch, targets in seen:
        torch.testing.assert_close(targets.sum(1), torch.ones(20))
        assert torch.equal(targets, targets.round()) is (epoch == 1)
    assert 0 <= float(trainer.callback_metrics["train/acc"]) <= 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "`mix` needs `mixup` or `cutmix` above 0, got neither"),
        ({"mixup": -0.1}, r"`mix.mixup` must lie in \[0, 1000\], got -0.1. To leave it out, set it to 0"),
        ({"cutmix": float("nan")}, "`mix.cutmix` must lie"),
        ({"mixup": 0.2, "off_epoch": -1}, "`mix.off_epoch` must be at least 0, got -1"),
    ],
)
def test_bounds(options, says):
    with pytest.raises(UserError, match=says):
        Mixing(**options)


def test_a_batch_of_one_cannot_be_mixed(samples):
    says = r"batches of at least 2 samples, got 1\. Raise `batch_size`"
    with pytest.raises(UserError, match=says):
        DigitsDataModule(batch_size=1, mix=BOTH)
    with pytest.raises(UserError, match=says):
        list(memory(samples.subset(torch.tensor([3])), BOTH, size=1))
    assert len(list(memory(samples.subset(torch.tensor([3])), Mixing(mixup=1.0, off_epoch=0), size=1))) == 1
