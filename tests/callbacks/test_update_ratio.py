import csv
from math import inf, sqrt
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_recipes.callbacks import UpdateRatioMonitor

from .monitored import Net, batches, fit, net, waits_by_step


class Oracle(Callback):
    """Copies all weights before and after each batch, and keeps what the optimizer was given."""

    def __init__(self):
        self.ratios, self.norms, self.lengths = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = {name: p.detach().clone() for name, p in pl_module.named_parameters() if p.ndim >= 2}

    def on_train_batch_end(self, trainer, pl_module, *_):
        after = {name: p.detach() for name, p in pl_module.named_parameters()}
        grads = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        moved = {n: float((after[n] - w).double().norm() / w.double().norm()) for n, w in self.before.items()}
        self.norms.append({n: float(grads[n].double().norm()) for n in moved if n in grads})
        self.lengths.append({n: float(w.double().norm()) for n, w in self.before.items()})
        self.ratios.append(moved)


class Keeping(Net):
    """Leaves the gradients for the oracle to see."""

    def on_before_zero_grad(self, optimizer):
        pass

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)


def rows(monitor):
    layers = monitor.layers()
    return [dict(zip(layers, row, strict=True)) for row in monitor.history.table(layers)]


@pytest.mark.parametrize("clip", [None, 0.05])
def test_sgd_moves_by_rate_times_gradient(clip):
    monitor, oracle = UpdateRatioMonitor(1), Oracle()
    fit(net(kind=Keeping), [monitor, oracle], gradient_clip_val=clip)
    assert monitor.history.steps == list(range(1, 13))
    for row, norms, lengths in zip(rows(monitor), oracle.norms, oracle.lengths, strict=True):
        assert row == pytest.approx({name: 0.1 * norms[name] / lengths[name] for name in row}, rel=1e-4)
        assert not clip or 0.1 * sqrt(sum(v**2 for v in norms.values())) <= 0.1 * clip * 1.001


def test_a_step_under_accumulation_is_the_optimizers():
    whole, parts = UpdateRatioMonitor(1), UpdateRatioMonitor(1)
    fit(net(), [whole], data=batches(6, size=16))
    fit(net(), [parts], data=batches(12, size=8), accumulate_grad_batches=2)
    assert parts.history.steps == [1, 2, 3, 4, 5, 6]
    for one, other in zip(rows(whole), rows(parts), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_the_first_step_of_adam_is_the_rate_in_every_weight():
    module, monitor = net(optimizer=lambda p: torch.optim.Adam(p, 0.02, eps=1e-12)), UpdateRatioMonitor()
    weights = {n: p.detach().clone() for n, p in module.named_parameters() if p.ndim >= 2}
    inputs, targets = torch.randn(8, 6), torch.randint(0, 3, (8,))
    module.net[1] = nn.Identity()  # no gradient is zero
    fit(module, [monitor], data=DataLoader(TensorDataset(inputs, targets), 8))
    expected = {n: 0.02 * sqrt(w.numel()) / float(w.norm()) for n, w in weights.items()}
    assert rows(monitor) == [pytest.approx(expected, rel=1e-4)]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.5),
        lambda p: torch.optim.AdamW(p, 0.01, fused=True),
        lambda p: torch.optim.RMSprop(p, 0.01, foreach=True),
        lambda p: torch.optim.LBFGS(p, 0.1, max_iter=4),
    ],
    ids=["nesterov", "adamw", "fused", "rmsprop", "lbfgs"],
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_any_optimizer_as_seen_from_outside(make, precision):
    monitor, oracle = UpdateRatioMonitor(1), Oracle()
    fit(net(optimizer=make), [monitor, oracle], precision=precision)
    assert len(rows(monitor)) == 12
    for row, moved in zip(rows(monitor), oracle.ratios, strict=True):
        assert row == pytest.approx(moved, rel=2e-4, abs=1e-9)


def test_what_is_measured_and_what_is_not():
    layers = [nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 3)]
    layers[2].weight.requires_grad_(False)
    nn.init.zeros_(layers[3].weight)
    monitor = UpdateRatioMonitor(4)
    fit(net(*layers), [monitor])
    assert monitor.layers() == ["net.0.weight", "net.3.weight"]  # no bias, no norm, nothing frozen
    assert monitor.history.steps == [1, 2, 3, 4, 5, 8, 12]
    first, second = rows(monitor)[:2]
    assert first["net.3.weight"] != first["net.3.weight"]  # its norm was zero
    assert second["net.3.weight"] > 0


def test_few_scalars_are_logged_at_measured_steps_only():
    deep = [nn.Linear(6, 6) for _ in range(30)]
    monitor = UpdateRatioMonitor(10)
    logger = fit(net(*deep, nn.Linear(6, 3)), [monitor])
    assert [step for step, _ in logger.lines] == [0, 1, 2, 3, 4, 9]  # as Lightning counts
    assert all(len(line) <= 9 for _, line in logger.lines)
    step_ten = rows(monitor)[-1]
    ordered = sorted(step_ten.values())
    assert logger.lines[-1][1]["update_ratio/median"] == ordered[len(ordered) // 2]
    first = sorted(step_ten[f"net.{number}.weight"] for number in range(3))
    assert logger.lines[-1][1]["update_ratio/net.0-2"] == first[1]


def scaled(fused=False, **options):
    """Return a fit in float16 whose first gradients overflow, and the steps that it took."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, backoff_factor=2.0**-6)
    module = net(optimizer=lambda p: torch.optim.Adam(p, 0.01, fused=fused))
    monitor = UpdateRatioMonitor(**options)
    fit(module, [monitor], plugins=MixedPrecision("16-mixed", "cpu", scaler))
    return monitor, int(module.optimizers().optimizer.state[module.net[0].weight]["step"])


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_leaves_out_is_none(fused):
    monitor, taken = scaled(fused, every_n_steps=1)
    assert 0 < taken < 12
    assert monitor.history.steps == list(range(1, taken + 1))
    assert all(0 < ratio < inf for row in rows(monitor) for ratio in row.values())
    assert monitor.state_dict()["steps"] == [taken]


def test_steps_left_out_by_a_fused_optimizer_between_measurements_are_taken_off():
    monitor, taken = scaled(fused=True, every_n_steps=7)
    assert monitor.state_dict()["steps"] == [taken]
    assert monitor.history.steps[-1] <= taken


class TwoByHand(Net):
    """Two optimizers, the second of which steps on every second batch, and both twice in one batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [
            torch.optim.SGD(self.net[0].parameters(), 0.1),
            torch.optim.SGD(self.net[2].parameters(), 0.2),
        ]

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        for _ in range(2):
            self.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            first.step()
            if batch_idx % 2:
                second.step()


def test_each_of_two_optimizers_counts_its_own_steps():
    monitor = UpdateRatioMonitor(8)
    logger = fit(net(kind=TwoByHand), [monitor])
    table = dict(zip(monitor.history.steps, rows(monitor), strict=True))
    measured = {name: [s for s, row in table.items() if row[name] == row[name]] for name in table[1]}
    assert measured == {
        "net.0.weight": [1, 2, 3, 4, 5, 8, 16, 24],
        "net.2.weight": [1, 2, 3, 4, 5, 8],
    }
    assert monitor.state_dict()["steps"] == [24, 12]
    assert len(logger.values("update_ratio/net.2")) == 4  # two steps in a batch: the last one


def test_the_host_waits_at_measured_steps_only_and_once():
    alone = waits_by_step([], net(), epochs=2)
    watched = waits_by_step([UpdateRatioMonitor(10)], net(), epochs=2)
    extra = [b - a for a, b in zip(alone, watched, strict=True)]
    assert extra == [1 if step <= 5 or step % 10 == 0 else 0 for step in range(1, 25)]


def test_the_copy_of_the_weights_lives_for_a_step_only():
    held = []

    class Looking(Callback):
        def on_train_batch_end(self, *_):
            held.append(monitor._held)

    monitor = UpdateRatioMonitor(1)
    fit(net(), [monitor, Looking()])
    assert held == [None] * 12


def test_a_picture_and_numbers():
    monitor = UpdateRatioMonitor(3, dirpath="here", name="ratios")
    fit(net(), [monitor])
    with Path("here/ratios.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == [1, 2, 3, 4, 5, 6, 9, 12]
    assert [float(line["net.0.weight"]) for line in lines] == pytest.approx(
        [row["net.0.weight"] for row in rows(monitor)], rel=1e-5
    )
    width, height = Image.open("here/ratios.png").size
    assert width > 600
    assert height > 200
    assert Path("here").exists()


def test_a_rehearsal_writes_nothing_and_an_exception_leaves_what_was_measured():
    class Failing(Net):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 5 and not self.trainer.fast_dev_run:
                raise RuntimeError("failed on purpose")

    fit(net(), [UpdateRatioMonitor()], fast_dev_run=True)
    assert not Path("update_ratio.csv").exists()
    module = net(kind=Failing)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(module, [UpdateRatioMonitor()])
    assert Path("update_ratio.csv").read_text().count("\n") == 6


@pytest.mark.parametrize(
    ("rate", "status", "cause"),
    [(0.02, "PASS", ()), (50.0, "WARN", "learning-rate-too-high"), (1e-6, "INFO", "learning-rate-too-low")],
)
def test_a_rate_far_off_is_named_and_a_healthy_one_is_not(rate, status, cause):
    monitor = UpdateRatioMonitor(10)
    layers = [nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)]
    fit(net(*layers, optimizer=lambda p: torch.optim.SGD(p, rate)), [monitor], epochs=5)
    finding = monitor.findings[0]
    assert finding.status == status, finding
    assert finding.causes[:1] == ((cause,) if cause else ())


def test_a_warning_ends_the_fit_of_a_rate_that_is_too_high():
    with pytest.warns(
        UserWarning, match="UpdateRatioMonitor: A step moves .* Divide the learning rate by 10"
    ):
        fit(net(optimizer=lambda p: torch.optim.Adam(p, 3.0)), [UpdateRatioMonitor()])


def test_a_module_without_weights_is_warned_of():
    class Bare(Net):
        def __init__(self):
            super().__init__(nn.Identity())
            self.scale = nn.Parameter(torch.ones(()))

        def training_step(self, batch, batch_idx):
            return self.scale

    with pytest.warns(UserWarning, match="finds no weights with two dimensions in Bare"):
        fit(Bare(), [UpdateRatioMonitor()])
