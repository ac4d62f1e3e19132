from math import exp

import pytest
import torch

from lightning_recipes.checks.curves import curves

N = 40
SEEDS = range(40)


def run(seed, loss, *, lr=None, noise=0.005, train=None, val=None, val_loss=None):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return noise * float(torch.randn((), generator=generator))

    rows = []
    for t in range(N):
        row = {"epoch": t, "step": 10 * t, "train/loss": loss(t) + draw()}
        for name, curve in (("lr", lr), ("train/acc", train), ("val/acc", val), ("val/loss", val_loss)):
            if curve is not None:
                row[name] = curve(t) + (0 if name == "lr" else draw())
        rows.append(row)
    return rows


def causes(rows):
    return {cause for finding in curves(rows) for cause in finding.causes[:1]}


def saturating(last, pace=5):
    return lambda t: last - (last - 0.1) * exp(-t / pace)


@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_a_healthy_run_has_no_shape(noise):
    for seed in SEEDS:
        rows = run(
            seed,
            lambda t: 0.15 + 2.1 * exp(-t / 5),
            lr=lambda t: 0.1 * (1 - t / N),
            noise=noise,
            train=saturating(0.96),
            val=saturating(0.92),
            val_loss=lambda t: 0.25 + 2 * exp(-t / 5),
        )
        assert [finding.status for finding in curves(rows)] == ["PASS"]


def test_flat_and_then_a_drop():
    def late(t):
        return 2.3 if t < 12 else 0.2 + 2.1 * exp(-(t - 12) / 4)

    for seed in SEEDS:
        assert "initialization-too-small" in causes(run(seed, late))
        warm = run(seed, late, lr=lambda t: 0.1 * min(1, (t + 1) / 25))
        assert "initialization-too-small" not in causes(warm)


def test_a_plateau_at_a_constant_rate():
    def loss(t):
        return 0.8 + 1.5 * exp(-t / 3)

    for seed in SEEDS:
        assert causes(run(seed, loss, lr=lambda t: 0.1)) == {"schedule-missing"}
        assert causes(run(seed, loss, lr=lambda t: 0.1 * (1 - t / N))) == set()
        assert causes(run(seed, loss)) == set()
        done = run(seed, loss, lr=lambda t: 0.1, train=lambda t: 1.0, val=lambda t: 0.97)
        assert causes(done) == set()


def test_a_rate_that_dropped_early():
    def early(t):
        return 2.3 - 0.08 * t if t < 12 else 1.3

    def usual(t):
        return 0.8 + 1.5 * exp(-t / 3) if t < 16 else 0.5 + 0.3 * exp(-(t - 16) / 2)

    for seed in SEEDS:
        assert causes(run(seed, early, lr=lambda t: 0.1 if t < 12 else 0.01)) == {"schedule-too-early"}
        assert "schedule-too-early" not in causes(run(seed, usual, lr=lambda t: 0.1 if t < 16 else 0.01))


def test_an_accuracy_that_still_rises():
    for seed in SEEDS:
        rows = run(
            seed, lambda t: 2.3 - 0.02 * t, train=lambda t: 0.1 + 0.01 * t, val=lambda t: 0.1 + 0.01 * t
        )
        assert causes(rows) == {"train-longer"}


def test_a_gap_and_none():
    for seed in SEEDS:
        rows = run(
            seed,
            lambda t: 0.01 + 2.2 * exp(-t / 4),
            train=saturating(0.995),
            val=saturating(0.6),
            val_loss=lambda t: 1.4 + exp(-t / 3) + 0.05 * max(0, t - 10),
        )
        found = curves(rows)
        assert [(finding.status, finding.causes) for finding in found] == [("WARN", ("overfitting",))]
        rows = run(seed, lambda t: 1.4 + 0.9 * exp(-t / 4), train=saturating(0.5, 3), val=saturating(0.49, 3))
        assert causes(rows) == {"underfitting"}


def test_few_points_are_not_judged():
    assert curves([{"train/loss": 1.0}] * 5)[0].status == "SKIP"
    assert curves([])[0].status == "SKIP"
    assert curves([{"train/loss": float("nan")}] * 50)[0].status == "SKIP"
