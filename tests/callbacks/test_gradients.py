import csv
from math import hypot, isfinite
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from lightning_recipes.callbacks import GradientMonitor

from .monitored import Net, batches, fit, net, waits_by_step


class Oracle(Callback):
    """Notes all gradients before and after Lightning clips them."""

    def __init__(self):
        self.before, self.after = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.before.append(self._norms(pl_module))

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if any(p.grad is not None for p in pl_module.parameters()):
            self.after.append(self._norms(pl_module))

    def on_train_end(self, trainer, pl_module):
        self.after.append(self._norms(pl_module))

    @staticmethod
    def _norms(module):
        return {n: float(p.grad.double().norm()) for n, p in module.named_parameters() if p.grad is not None}


def total(norms):
    return hypot(*norms.values())


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_clip_val": 0.1}, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}],
    ids=["no clipping", "by norm", "by value"],
)
@pytest.mark.parametrize("accumulated", [1, 2])
def test_norms_and_clipping_as_seen_from_outside(options, accumulated):
    monitor, oracle = GradientMonitor(1), Oracle()
    logger = fit(net(), [monitor, oracle], accumulate_grad_batches=accumulated, **options)
    assert monitor.history.steps == list(range(1, 12 // accumulated + 1))
    before = [total(norms) for norms in oracle.before]
    assert monitor.history.column("total norm") == pytest.approx(before, rel=1e-5)
    assert logger.values("gradients/total") == pytest.approx(before, rel=1e-5)
    assert logger.values("gradients/net.0") == pytest.approx(
        [norms["net.0.weight"] for norms in oracle.before], rel=1e-5
    )
    after = [total(norms) for norms in oracle.after]
    coefficients = monitor.history.column("clip coefficient")
    assert coefficients == pytest.approx([a / b for a, b in zip(after, before, strict=True)], rel=1e-4)
    assert logger.values("gradients/clip_coefficient") == coefficients
    if options == {"gradient_clip_val": 0.1}:
        assert coefficients == pytest.approx([min(1, 0.1 / b) for b in before], rel=1e-4)


def test_gradients_relative_to_weights_and_the_ratio_of_the_thirds():
    layers = [nn.Linear(6, 6) for _ in range(5)]
    module, monitor = net(*layers, nn.Linear(6, 3)), GradientMonitor(1)
    weights = {n: float(p.norm()) for n, p in module.named_parameters() if p.ndim == 2}
    oracle = Oracle()
    logger = fit(module, [monitor, oracle], data=batches(1))
    relative = {n: oracle.before[0][n] / w for n, w in weights.items()}
    row = dict(zip(monitor.layers(), monitor.history.table(monitor.layers())[0], strict=True))
    assert row == pytest.approx(relative, rel=1e-5)
    values = list(relative.values())
    ratio = (values[0] + values[1]) / (values[4] + values[5])
    assert logger.values("gradients/depth_ratio") == pytest.approx([ratio], rel=1e-5)
    moved = [0.1 * oracle.before[0][f"net.{i}.weight"] / weights[f"net.{i}.weight"] for i in (0, 1)]
    assert monitor.history.column("update of first third") == pytest.approx([sum(moved) / 2], rel=1e-4)


class ByHand(Net):
    """Steps by hand, and clips by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        self.clip_gradients(optimizer, 1e-3, "norm")
        optimizer.step()


def test_what_was_before_clipping_by_hand_is_not_known():
    monitor = GradientMonitor(1)
    logger = fit(net(kind=ByHand), [monitor])
    assert monitor.history.column("total norm") == pytest.approx([1e-3] * 12, rel=1e-3)
    assert logger.values("gradients/clip_coefficient") == []
    assert [finding.status for finding in monitor.findings] == ["PASS", "SKIP", "SKIP"]


class TwoByHand(Net):
    """A step of each of two optimizers on the same loss."""

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
        self.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        first.step()
        second.step()


def test_each_of_two_optimizers_has_a_norm_of_its_own():
    monitor, oracle = GradientMonitor(2), Oracle()
    logger = fit(net(kind=TwoByHand), [monitor, oracle])
    assert monitor.history.steps == [2, 4, 6, 8, 10, 12]
    seen = oracle.before[2::4]  # two calls a batch, every second batch
    of_first = [hypot(norms["net.0.weight"], norms["net.0.bias"]) for norms in seen]
    of_second = [hypot(norms["net.2.weight"], norms["net.2.bias"]) for norms in seen]
    assert monitor.history.column("total norm") == pytest.approx(of_first, rel=1e-5)
    assert logger.values("gradients/total_2") == pytest.approx(of_second, rel=1e-5)


def scaled(fused, *, every=1, init_scale=2.0**24):
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, backoff_factor=2.0**-6)
    module = net(optimizer=lambda p: torch.optim.Adam(p, 0.01, fused=fused))
    monitor = GradientMonitor(every)
    fit(module, [monitor], plugins=MixedPrecision("16-mixed", "cpu", scaler))
    return monitor, int(module.optimizers().optimizer.state[module.net[0].weight]["step"])


@pytest.mark.parametrize("fused", [False, True])
def test_norms_are_those_without_the_scalers_factor(fused):
    monitor, taken = scaled(fused, init_scale=1024.0)
    plain = GradientMonitor(1)
    fit(net(optimizer=lambda p: torch.optim.Adam(p, 0.01)), [plain])
    assert taken == 12
    expected = plain.history.column("total norm")
    assert monitor.history.column("total norm") == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("every", [1, 5])
def test_an_overflow_that_the_scaler_leaves_out_is_no_fault(fused, every):
    monitor, taken = scaled(fused, every=every)
    assert 0 < taken < 12
    assert monitor.findings[0].status == "PASS"
    assert monitor.state_dict()["steps"] == [taken]
    assert all(isfinite(value) for value in monitor.history.column("total norm"))


class Breaking(nn.Module):
    """Hands NaN back, from its n-th backward pass on, to what comes before it."""

    def __init__(self, at):
        super().__init__()
        self.at, self.passes = at, 0

    def forward(self, x):
        if x.requires_grad:
            x.register_hook(self._break)
        return x

    def _break(self, gradient):
        self.passes += 1
        return gradient * float("nan") if self.passes >= self.at else None


class Backwards(Net):
    """Registers its layers in another order than that in which it runs them."""

    def __init__(self, at):
        super().__init__(nn.Identity())
        self.head, self.middle, self.stem = nn.Linear(6, 3), nn.Linear(6, 6), nn.Linear(6, 6)
        self.net = None
        self.broken = Breaking(at)

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        hidden = self.broken(self.middle(self.stem(inputs)))
        return nn.functional.cross_entropy(self.head(hidden), targets)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("every", [1, 5])
def test_a_nan_is_named_by_the_layer_in_which_it_arose(clip, every):
    monitor = GradientMonitor(every)
    with pytest.warns(UserWarning, match="arose in middle, behind which they were finite"):
        fit(net(7, kind=Backwards), [monitor], gradient_clip_val=clip)
    finding = monitor.findings[0]
    assert finding.status == "FAIL"
    assert finding.evidence == {
        "steps": 6,
        "first_step": 7,
        "layer": "middle",
        "layers": ["middle", "stem"],
    }
    assert finding.causes[0] == "exploding-gradients"


def test_an_input_that_is_nan_is_told_from_a_layer_that_makes_one():
    data = batches(12)
    data.dataset.tensors[0][5 * 8 + 3, 2] = float("nan")
    monitor = GradientMonitor()
    with pytest.warns(UserWarning, match="already in net.2, the last layer"):
        fit(net(), [monitor], data=data)
    finding = monitor.findings[0]
    assert (finding.status, finding.evidence["first_step"], finding.evidence["layer"]) == ("FAIL", 6, "net.2")
    assert "non-finite-input" in finding.causes


def test_what_was_not_finite_survives_a_checkpoint():
    monitor, other = GradientMonitor(5), GradientMonitor(5)
    with pytest.warns(UserWarning, match="arose in middle"):
        fit(net(7, kind=Backwards), [monitor])
    other.load_state_dict(monitor.state_dict())
    assert other.state_dict()["not_finite"] == monitor.state_dict()["not_finite"]
    assert other.findings[0].status == "FAIL"


def deep(activation, width=16, depth=18):
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), activation())]
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight)
    return [nn.Linear(6, width), activation(), *layers, nn.Linear(width, 3)]


@pytest.mark.parametrize(("activation", "status"), [(nn.Sigmoid, "WARN"), (nn.ReLU, "PASS")])
def test_vanishing_gradients_are_named_and_healthy_ones_are_not(activation, status):
    monitor = GradientMonitor(5)
    fit(net(*deep(activation), optimizer=lambda p: torch.optim.SGD(p, 0.01)), [monitor], epochs=5)
    finding = monitor.findings[1]
    assert finding.status == status, finding
    assert (finding.causes[:1] == ("vanishing-gradients",)) is (status == "WARN")


@pytest.mark.parametrize(("clip", "status"), [(1e-6, "WARN"), (1.0, "PASS"), (None, "PASS")])
def test_clipping_that_is_too_strong_is_named_and_usual_clipping_is_not(clip, status):
    monitor = GradientMonitor()
    fit(net(), [monitor], epochs=10, gradient_clip_val=clip)
    finding = monitor.findings[2]
    assert finding.status == status, finding
    assert finding.causes == (("gradient-clipping-too-strong",) if status == "WARN" else ())


def test_the_host_waits_at_measured_steps_only_and_once():
    def extra(**options):
        alone = waits_by_step([], net(), epochs=2, **options)
        watched = waits_by_step([GradientMonitor(10)], net(), epochs=2, **options)
        return [b - a for a, b in zip(alone, watched, strict=True)]

    assert extra() == [1 if step % 10 == 0 else 0 for step in range(1, 25)]
    assert extra(gradient_clip_val=0.1) == [1 if step % 10 == 0 else 0 for step in range(1, 25)]


def test_sparse_gradients_of_an_embedding():
    class Embedded(Net):
        def training_step(self, batch, batch_idx):
            inputs, targets = batch
            return nn.functional.cross_entropy(self.net((inputs > 0).long()).mean(1), targets)

    module = net(nn.Embedding(2, 5, sparse=True), nn.Linear(5, 3), kind=Embedded)
    monitor = GradientMonitor(1)
    fit(module, [monitor])
    assert len(monitor.history.steps) == 12
    assert all(value > 0 for value in monitor.history.column("net.0.weight"))


def test_a_picture_and_numbers():
    monitor = GradientMonitor(3)
    fit(net(), [monitor])
    with Path("gradients.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["step"]) for line in lines] == [3, 6, 9, 12]
    assert [float(line["clip coefficient"]) for line in lines] == [1.0] * 4
    assert Path("gradients.png").exists()


def test_no_hooks_are_left_on_parameters():
    module = net()
    fit(module, [GradientMonitor()])
    assert not any(p._post_accumulate_grad_hooks for p in module.parameters())
