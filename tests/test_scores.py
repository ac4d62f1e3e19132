import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_recipes.reports.ensembles import ensemble_rows, ensemble_table
from lightning_recipes.scores import (
    accuracy,
    bootstrap_interval,
    brier,
    disagreement,
    ece,
    ece_terms,
    fit_temperature,
    measure_ensemble,
    nll,
    resampled_means,
    score_terms,
    select_members,
    temper,
)
from lightning_recipes.utils.errors import UserError


def drawn(seed=0, samples=200, classes=4, members=None, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, classes) if members is None else (members, samples, classes)
    targets = torch.randint(classes, (samples,), generator=generator)
    logits = scale * torch.randn(shape, generator=generator) + F.one_hot(targets, classes)
    return logits.softmax(-1), targets


def rows_that_sum_to_one(p):
    return (p.double() / p.double().sum(1, keepdim=True)).numpy()  # to float64's digits: scikit-learn looks


# Scores


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn_and_torchmetrics(seed):
    p, y = drawn(seed)
    assert accuracy(p, y) == pytest.approx(accuracy_score(y, p.argmax(1)), abs=1e-12)
    assert nll(p, y) == pytest.approx(log_loss(y, rows_that_sum_to_one(p)), abs=1e-6)
    per_class = [brier_score_loss(y == k, p[:, k].double().numpy()) for k in range(4)]
    assert brier(p, y) == pytest.approx(sum(per_class), abs=1e-12)
    theirs = multiclass_calibration_error(p, y, num_classes=4, n_bins=15)
    assert ece(p, y) == pytest.approx(float(theirs), abs=1e-6)  # theirs in float32


def test_ece_on_the_edges_of_bins_is_torchmetrics():
    edges = torch.linspace(0, 1, 16)[8:]
    p = torch.stack([edges, 1 - edges], 1)
    y = torch.tensor([0, 1] * 4)
    theirs = multiclass_calibration_error(p, y, num_classes=2, n_bins=15)
    assert ece(p, y) == pytest.approx(float(theirs), abs=1e-6)


def test_closed_forms():
    even, y = torch.full((8, 4), 0.25), torch.arange(8) % 4
    assert nll(even, y) == pytest.approx(math.log(4))
    assert brier(even, y) == pytest.approx(0.75)
    assert accuracy(even, y) == ece(even, y) + 0.25 == 0.25
    sure = F.one_hot(y, 4).float()
    assert [accuracy(sure, y), nll(sure, y), brier(sure, y), ece(sure, y)] == [1, 0, 0, 0]
    wrong = sure.roll(1, 1)
    assert accuracy(wrong, y) == 0
    assert brier(wrong, y) == 2
    assert ece(wrong, y) == 1
    assert nll(wrong, y) == pytest.approx(-math.log(torch.finfo(torch.float32).tiny))  # much, and finite


def test_the_order_of_samples_changes_nothing():
    p, y = drawn()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    for score in (accuracy, nll, brier, ece):
        assert score(p[order], y[order]) == pytest.approx(score(p, y), abs=1e-12)


def test_disagreement_is_the_mean_over_pairs():
    p, _ = drawn(members=4)
    votes = p.argmax(-1)
    pairs = [(votes[i] != votes[j]).double().mean() for i in range(4) for j in range(i)]
    assert disagreement(p) == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-12)
    assert disagreement(p[:1]) == 0
    assert disagreement(p[:1].expand(3, -1, -1)) == 0


@pytest.mark.parametrize(
    ("p", "y", "says"),
    [
        (torch.ones(2, 2) / 2, torch.zeros(3, dtype=torch.long), r"got \(2, 2\) and \(3,\)"),
        (torch.ones(0, 2), torch.zeros(0, dtype=torch.long), r"got \(0, 2\)"),
        (torch.tensor([[2.0, -1.0]]), torch.tensor([0]), "Give probabilities, not logits"),
        (torch.full((1, 2), torch.nan), torch.tensor([0]), "or NaN"),
        (torch.ones(1, 2) / 2, torch.tensor([2]), r"must lie in 0\.\.1.*got 2\.\.2"),
        (torch.ones(1, 2) / 2, torch.tensor([-1]), r"got -1\.\.-1"),
    ],
)
def test_what_cannot_be_scored_is_refused(p, y, says):
    for score in (accuracy, ece, fit_temperature):
        with pytest.raises(UserError, match=says):
            score(p, y)


# Intervals


def test_resampled_means_are_means_of_samples():
    """Against drawing the rows one by one; N identical rows keep their mean."""
    terms = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(5)
    rows = torch.randint(30, (7, 30), generator=generator)
    torch.testing.assert_close(resampled_means(terms, resamples=7, seed=5), terms[rows].mean(1))


def test_the_interval_of_a_share_is_the_normal_one():
    """60 of 100 right: the standard error is sqrt(0.24 / 100)."""
    values = (torch.arange(100) < 60).double()
    low, high = bootstrap_interval(values, resamples=20_000)
    error = 1.96 * math.sqrt(0.24 / 100)  # 0.096; a resampled share moves in steps of 0.01
    assert low == pytest.approx(0.6 - error, abs=0.011)
    assert high == pytest.approx(0.6 + error, abs=0.011)


def test_the_interval_of_ece_resamples_whole_samples():
    p, y = drawn(samples=60)
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(60, (200, 60), generator=generator)
    scores = np.array([ece(p[index], y[index]) for index in rows])
    ours = bootstrap_interval(
        ece_terms(p, y), lambda means: means.abs().sum(1), resamples=200, seed=3, level=0.9
    )
    assert ours == pytest.approx(tuple(np.quantile(scores, [0.05, 0.95])), abs=1e-9)


def test_intervals_are_seeded_and_nested():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    wide, narrow = bootstrap_interval(values, level=0.99), bootstrap_interval(values, level=0.5)
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]


def test_bounds_of_the_bootstrap():
    with pytest.raises(UserError, match="`resamples` must be at least 1, got 0"):
        bootstrap_interval(torch.ones(3), resamples=0)
    with pytest.raises(UserError, match=r"`level` must lie in \(0, 1\), got 95"):
        bootstrap_interval(torch.ones(3), level=95)


# Temperature


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.3, 1.0, 8.0])
def test_the_temperature_is_the_minimum(seed, scale):
    p, y = drawn(seed, scale=scale)
    exact = p.double()
    found = minimize_scalar(
        lambda log_t: nll(temper(exact, math.exp(log_t)), y),
        bounds=(math.log(0.01), math.log(100)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    # At a minimum the score's own digits end long before the argument's: 1e-15 of NLL are 1e-7 of ln T
    assert fit_temperature(p, y) == pytest.approx(math.exp(found.x), rel=1e-5)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_recovered(true):
    """Labels drawn from p: tempered by 1/T before, they ask for T back."""
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(20_000, 5, generator=generator).mul(2).softmax(1)
    y = torch.multinomial(p, 1, generator=generator)[:, 0]
    assert fit_temperature(temper(p, 1 / true), y) == pytest.approx(true, rel=0.03)  # three standard errors


def test_temper():
    p, _ = drawn()
    assert temper(p, 1.0) is p
    torch.testing.assert_close(temper(temper(p, 2.0), 0.5), p)
    torch.testing.assert_close(temper(p, 1e6), torch.full_like(p, 0.25), atol=1e-4, rtol=0)
    assert torch.equal(temper(p, 3.0).argmax(1), p.argmax(1))
    assert torch.isfinite(temper(torch.tensor([1.0, 0.0]), 0.1)).all()
    with pytest.raises(UserError, match="`temperature` must be above 0, got 0"):
        temper(p, 0)


def test_where_the_samples_say_nothing_of_the_temperature():
    sure = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    assert fit_temperature(sure, torch.tensor([0, 1])) == 1
    assert fit_temperature(sure, torch.tensor([1, 0])) == 100  # worse than chance: as flat as may be
    assert fit_temperature(torch.full((3, 2), 0.5), torch.tensor([0, 1, 0])) == 1
    zeros = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert math.isfinite(fit_temperature(zeros, torch.tensor([0, 1, 1])))


# Members


def test_selection_drops_what_hurts():
    p, y = drawn(members=3, scale=1.0)
    noise, _ = drawn(9, members=1, scale=8.0)
    both = torch.cat([p[:1], noise, p[1:]])
    kept = select_members(both, y)
    assert 1 not in kept
    assert kept == sorted(kept)
    assert nll(both[kept].mean(0), y) < nll(both.mean(0), y)
    for member in kept:  # no single removal lowers it further
        fewer = [other for other in kept if other != member]
        assert not fewer or nll(both[fewer].mean(0), y) >= nll(both[kept].mean(0), y) - 1e-7


def test_selection_keeps_equals_and_never_all_but_none():
    p, y = drawn(members=1)
    assert select_members(p.expand(3, -1, -1), y) == [0, 1, 2]  # no strict gain
    assert select_members(p, y) == [0]
    with pytest.raises(UserError, match="or NaN"):
        select_members(torch.cat([p, torch.full_like(p, torch.nan)]), y)


# Report


def test_the_report_repeats_the_scores():
    p, y = drawn(members=3)
    report = measure_ensemble(p, y, names=["a", "b", "c"], temperature=1.7, resamples=300)
    assert [row.name for row in report.rows] == ["a", "b", "c", "ensemble", "tempered"]
    sides = [*p, p.mean(0), temper(p.mean(0), 1.7)]
    for row, side in zip(report.rows, sides, strict=True):
        for score in (accuracy, nll, brier, ece):
            estimate = getattr(row, score.__name__)
            assert estimate.value == pytest.approx(score(side, y), abs=1e-6)  # means in float32 here
            assert estimate.low <= estimate.high
    assert report.disagreement == disagreement(p)
    assert (report.samples, report.temperature) == (200, 1.7)
    pooled = score_terms(p.mean(0), y)
    for row, side in zip(report.rows[:3], p, strict=True):
        gap = (score_terms(side, y) - pooled)[:, 1]
        paired = bootstrap_interval(gap, resamples=300)
        assert row.nll_gap == pytest.approx((float(gap.mean()), *paired), abs=1e-6)
    assert report.rows[3].nll_gap is report.rows[4].accuracy_gap is None


def test_a_mean_is_never_worse_than_its_members_on_average():
    """Jensen's inequality, for NLL and Brier score."""
    p, y = drawn(members=5)
    *members, pooled = measure_ensemble(p, y, resamples=10).rows
    for name in ("nll", "brier"):
        mean = sum(getattr(row, name).value for row in members) / 5
        assert getattr(pooled, name).value <= mean


def test_one_member_is_the_ensemble():
    p, y = drawn(members=1)
    (member, pooled) = measure_ensemble(p, y, resamples=50).rows
    assert member.nll == pooled.nll
    assert member.nll_gap == (0, 0, 0)


def test_the_table_and_the_csv_say_the_same():
    p, y = drawn(members=2)
    report = measure_ensemble(p, y, temperature=2.0, resamples=50)
    table = ensemble_table(report, title="t", notes=["last"])
    header, *rows = ensemble_rows(report)
    assert table.row_count == len(rows) == 4
    assert all(len(row) == len(header) for row in rows)
    assert [row[0] for row in rows] == list(table.columns[0].cells)
    for row, cell in zip(rows, table.columns[2].cells, strict=True):
        assert cell.startswith(f"{float(row[header.index('nll')]):.4f}\n")
    assert [row[header.index("temperature")] for row in rows] == ["1.0", "1.0", "1.0", "2.0"]
    assert rows[2][header.index("nll_gap")] == ""
    assert "temperature: 2\nlast" in table.caption


def test_a_report_needs_members():
    with pytest.raises(UserError, match=r"\(M, N, K\), got \(2, 2\)"):
        measure_ensemble(torch.ones(2, 2) / 2, torch.tensor([0, 1]))
