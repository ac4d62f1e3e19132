import numpy as np
import pytest
import torch

from lightning_recipes.preprocessing import Moments, moments


def vectors(count=300, size=5, *, offset=0.0):
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return mixed @ torch.randn(size, size, generator=generator, dtype=torch.float64) + offset


def fitted(pieces, *, covariance):
    found = Moments(covariance=covariance)
    for piece in pieces:
        found.update(piece)
    return found


@pytest.mark.parametrize("pieces", [1, 2, 7, 299, [1, 0, 250, 49], [300, 0]])
def test_one_pass_in_pieces_is_numpy_s_two_passes_over_all(pieces):
    data = vectors()
    whole = data.numpy()
    for covariance in (False, True):
        found = fitted(data.split(pieces), covariance=covariance)
        assert found.count == 300
        # Sums of 300 numbers in another order: a few units in the last place, 2e-16.
        np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found.variance, whole.var(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(whole.T, bias=True), rtol=1e-12, atol=1e-14)


def test_a_large_batch_is_worked_through_in_pieces(monkeypatch):
    monkeypatch.setattr(moments, "_NUMBERS", 12)  # 2 vectors of 5 numbers
    seen = []
    merge = Moments._merge
    monkeypatch.setattr(Moments, "_merge", lambda self, piece: (seen.append(len(piece)), merge(self, piece)))
    found = fitted([vectors(7)], covariance=True)
    assert seen == [2, 2, 2, 1]
    np.testing.assert_allclose(found.covariance, np.cov(vectors(7).T, bias=True), rtol=1e-12, atol=1e-14)
    monkeypatch.setattr(moments, "_NUMBERS", 1)  # less than one vector
    assert fitted([vectors(2)], covariance=False).count == 2


def test_digits_survive_a_huge_offset_where_the_mean_of_squares_loses_all():
    data = vectors(1000, offset=1e9)
    true = data.sub(1e9).numpy().var(0)  # the subtraction is exact
    naive = (data.square().mean(0) - data.mean(0).square()).numpy()
    assert (np.abs(naive / true - 1) > 0.5).all()
    found = fitted(data.split(33), covariance=True)
    # A mean near 1e9 is known to 1e-7, so a deviation of 1 to 1e-14 and what it is merged with to 1e-7 / 33.
    np.testing.assert_allclose(found.variance, true, rtol=1e-7)
    np.testing.assert_allclose(found.covariance, np.cov(data.sub(1e9).T, bias=True), rtol=0, atol=1e-6)


def test_whole_numbers_are_taken_as_they_are():
    data = torch.randint(0, 256, (50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(
        fitted(data.split(9), covariance=False).variance, data.numpy().var(0), rtol=1e-12
    )


def test_what_was_read_stays_as_it_was():
    found = fitted([vectors()], covariance=False)
    mean, variance = found.mean, found.variance
    before = mean.clone(), variance.clone()
    found.update(vectors(offset=3.0))
    assert torch.equal(mean, before[0])
    assert torch.equal(variance, before[1])
