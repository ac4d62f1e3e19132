"""Mixup and cutmix against torchvision's, pair by pair, and what must hold of any blend."""

import pytest
import torch
from scipy.stats import beta
from torchvision.transforms import v2

from lightning_recipes.layers import mix
from lightning_recipes.utils.errors import UserError


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.rand(6, 3, 10, 14), torch.tensor([0, 3, 1, 3, 2, 0])


SHIFTED = torch.arange(6).roll(1)  # torchvision's partners


def test_mixup_is_torchvisions(batch):
    images, targets = batch
    lam = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
    mixed, soft = mix.mixup(images, targets, lam=lam, permutation=SHIFTED, num_classes=4)
    theirs = v2.MixUp(num_classes=4)
    for i, share in enumerate(lam.tolist()):
        params = {"labels": targets, "batch_size": 6, "lam": share}
        torch.testing.assert_close(mixed[i], theirs.transform(images, params)[i])
        torch.testing.assert_close(soft[i], theirs.transform(targets, params)[i])


def test_cutmix_is_torchvisions(batch, way):
    images, targets = batch
    lam = torch.tensor([0.0, 0.2, 0.5, 0.75, 0.99, 1.0])
    row, column = torch.tensor([0, 9, 5, 3, 4, 2]), torch.tensor([13, 0, 7, 7, 1, 6])
    box = mix.cut_box(lam, row, column, height=10, width=14)
    mixed, soft = mix.cutmix(images, targets, box=box, permutation=SHIFTED, num_classes=4)
    theirs = v2.CutMix(num_classes=4)
    for i in range(6):
        top, bottom, left, right = (int(edge[i]) for edge in box)
        kept = 1 - (bottom - top) * (right - left) / 140
        params = {"labels": targets, "batch_size": 6, "box": (left, top, right, bottom), "lam_adjusted": kept}
        assert torch.equal(mixed[i], theirs.transform(images, params)[i])
        torch.testing.assert_close(soft[i], theirs.transform(targets, params)[i])


@pytest.mark.parametrize("place", [(0, 0), (9, 13), (5, 7), (0, 7), (2, 12)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.51, 0.8, 1.0])
def test_a_box_is_that_of_torchvision(place, share, monkeypatch):
    theirs = v2.CutMix(num_classes=2)
    monkeypatch.setattr(theirs, "_dist", type("Fixed", (), {"sample": lambda self, _: share})())
    drawn = iter([place[1], place[0]])  # x comes first
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([next(drawn)]))
    x1, y1, x2, y2 = theirs.make_params([torch.zeros(1, 3, 10, 14)])["box"]
    ours = mix.cut_box(
        torch.tensor([share]), torch.tensor([place[0]]), torch.tensor([place[1]]), height=10, width=14
    )
    assert [int(edge) for edge in ours] == [y1, y2, x1, x2]


def test_the_share_of_a_paste_is_that_of_its_pixels(batch, way):
    images, targets = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 10, 14), batch[1]
    generator = torch.Generator().manual_seed(1)
    lam = torch.rand(6, generator=generator)
    place = torch.randint(10, (6,), generator=generator)
    box = mix.cut_box(lam, place, place, height=10, width=14)
    mixed, soft = mix.cutmix(images, torch.eye(6), box=box, permutation=SHIFTED)
    own = (mixed == images).float().mean((1, 2, 3))
    torch.testing.assert_close(soft.diagonal(), own)
    torch.testing.assert_close(soft[range(6), SHIFTED], 1 - own)
    assert 0.2 < float(own.mean()) < 0.95  # there was something to see
    assert len(targets) == 6


@pytest.mark.parametrize("permutation", [SHIFTED, torch.arange(6), torch.tensor([5, 4, 3, 2, 1, 0])])
def test_rows_of_targets_sum_to_one_and_a_share_of_one_is_the_identity(batch, permutation, way):
    images, targets = batch
    hard = mix.soft_targets(targets, 4)
    lam = torch.tensor([1.0, 0.123, 0.999, 0.0, 1.0, 0.5])
    box = mix.cut_box(lam, targets, targets, height=10, width=14)
    for mixed, soft in (
        mix.mixup(images, targets, lam=lam, permutation=permutation, num_classes=4),
        mix.cutmix(images, targets, box=box, permutation=permutation, num_classes=4),
    ):
        torch.testing.assert_close(soft.sum(1), torch.ones(6))
        assert torch.equal(mixed[[0, 4]], images[[0, 4]])
        assert torch.equal(soft[[0, 4]], hard[[0, 4]])
        assert images.equal(batch[0])
    assert torch.equal(images, batch[0])


def test_several_labels_are_blended_each_for_itself(batch):
    labels = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    lam, swap = torch.tensor([0.75, 0.5]), torch.tensor([1, 0])
    _, soft = mix.mixup(batch[0][:2], labels, lam=lam, permutation=swap)
    assert soft.tolist() == [[0.75, 1.0], [0.5, 1.0]]
    assert mix.soft_targets(torch.tensor([[1, 0]])).dtype == torch.float32


def test_mixup_leaves_the_mean_of_images_and_targets_as_it_is(batch):
    # λ is symmetric about 1/2, so every mean stays: 24,000 samples, σ of a mean at most 0.5/√24,000
    images, targets = batch[0][:, :1, :2, :2].repeat(4000, 1, 1, 1), batch[1].repeat(4000)
    lam = mix.draw_lam(0.2, 24_000, torch.Generator().manual_seed(3))
    mixed, soft = mix.mixup(images, targets, lam=lam, permutation=torch.arange(24_000).roll(1), num_classes=4)
    torch.testing.assert_close(mixed.mean(0), images.mean(0), rtol=0, atol=0.013)  # four σ
    torch.testing.assert_close(soft.mean(0), mix.soft_targets(targets, 4).mean(0), rtol=0, atol=0.013)
    torch.testing.assert_close(  # and so the mean over draws of what stands in one place is that of both
        mixed[1::6].mean(0), images[:2].mean(0), rtol=0, atol=0.032
    )


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 8.0])
def test_the_draws_are_beta(alpha):
    generator = torch.Generator().manual_seed(7)
    lam = mix.draw_lam(alpha, 20_000, generator).double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(lam.mean()) == pytest.approx(0.5, abs=4 * (variance / 20_000) ** 0.5)
    assert float(lam.var()) == pytest.approx(variance, rel=0.03)  # four σ of a variance at α = 1: 2.5 %
    for at in (0.001, 0.1, 0.3, 0.5, 0.8, 0.9, 0.99):
        expected = beta(alpha, alpha).cdf(at)
        assert float((lam < at).double().mean()) == pytest.approx(expected, abs=4 * 0.5 / 20_000**0.5)


def test_at_an_alpha_of_a_fifth_two_of_three_blends_are_beyond_nine_to_one():
    lam = mix.draw_lam(0.2, 20_000, torch.Generator().manual_seed(0))
    expected = 2 * beta(0.2, 0.2).cdf(0.1)
    assert expected == pytest.approx(2 / 3, abs=0.01)
    assert float(((lam < 0.1) | (lam > 0.9)).double().mean()) == pytest.approx(expected, abs=0.014)  # four σ


def test_the_draws_come_from_the_generator_alone():
    def draws(seed):
        return mix.draw_lam(0.3, 5, torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    assert torch.equal(draws(1), draws(1))
    assert not torch.equal(draws(1), draws(2))
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch.Generator().manual_seed(1)
    assert not torch.equal(mix.draw_lam(0.3, 5, generator), mix.draw_lam(0.3, 5, generator))


def test_what_cannot_be_mixed(batch):
    images, targets = batch
    one = torch.ones(1)
    with pytest.raises(UserError, match=r"at least 2 samples, got 1\. Raise `batch_size`"):
        mix.mixup(images[:1], targets[:1], lam=one, permutation=one.long() - 1, num_classes=4)
    with pytest.raises(UserError, match="at least 2 samples, got 1"):
        mix.cutmix(images[:1], targets[:1], box=(one, one, one, one), permutation=one, num_classes=4)
    with pytest.raises(UserError, match="need `num_classes`, got none"):
        mix.mixup(images, targets, lam=torch.ones(6), permutation=SHIFTED)
    with pytest.raises(UserError, match="got 3 and a target of 3"):
        mix.soft_targets(targets, 3)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_narrows_the_inputs_as_the_card_says(alpha):
    # Of independent samples, E[λ² + (1 - λ)²] = (α + 1)/(2α + 1) of the variance is left; four σ: 3 %
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(40_000, 1, 1, 1, generator=generator)
    lam = mix.draw_lam(alpha, 40_000, generator)
    mixed, _ = mix.mixup(images, images[:, :, 0, 0], lam=lam, permutation=torch.arange(40_000).roll(1))
    assert float(mixed.var()) == pytest.approx((alpha + 1) / (2 * alpha + 1), rel=0.03)
