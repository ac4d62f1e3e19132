import csv
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from torch.utils.data import DataLoader, TensorDataset

from lightning_recipes.callbacks import ActivationMonitor
from lightning_recipes.evidence import activations

from ..contract.toys import QUIET


class Net(LightningModule):
    """A network of functions; `bias` kills its units."""

    def __init__(self, act=F.relu, bias=0.0, layers=3, width=32):
        super().__init__()
        sizes = [8] + [width] * layers
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        for layer in self.layers:
            nn.init.constant_(layer.bias, bias)
        self.last, self.act = nn.Linear(width, 4), act

    def forward(self, x):
        for layer in self.layers:
            x = self.act(layer(x))
        return self.last(x)

    def training_step(self, batch):  # no batch_idx: Lightning reads the signature
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(monitor, module=None, *, epochs=1, batches=8, size=128, **options):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(batches * size, 8), torch.arange(batches * size) % 4)
    trainer = Trainer(**{**QUIET, "max_epochs": epochs, "callbacks": [monitor], **options})
    trainer.fit(Net() if module is None else module, DataLoader(data, size))
    return trainer


def read(path="activations.csv"):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_each_layer_is_measured_at_each_moment():
    monitor = ActivationMonitor(3, table=False)
    trainer = fit(monitor, epochs=2)
    rows = read()
    assert [row["step"] for row in rows[::3]] == ["0", "3", "6", "9", "12", "15"]
    assert [row["layer"] for row in rows[:3]] == ["relu", "relu#2", "relu#3"]
    assert {row["kind"] for row in rows} == {"relu"}
    assert 0.3 < float(rows[0]["zero"]) < 0.7
    assert rows[0]["saturated"] == ""
    width, height = Image.open("activations.png").size
    assert width > 500
    assert height > 300
    logged = {name for name in trainer.callback_metrics if name.startswith("activations/")}
    assert logged == {f"activations/{key}" for key in ("std_first", "std_last", "zero", "dead")}
    assert trainer.callback_metrics["activations/std_last"] == pytest.approx(float(rows[-1]["std"]))


def test_the_figures_are_those_of_the_batch():
    module, seen = Net(), []
    module.layers[0].register_forward_hook(lambda layer, args, output: seen.append(output.detach()))
    fit(ActivationMonitor(2, table=False), module, batches=4)
    for row, outputs in zip(read()[::3], seen[::2], strict=True):
        values = outputs.relu()
        assert float(row["mean"]) == pytest.approx(values.mean().item(), rel=1e-5)
        assert float(row["std"]) == pytest.approx(values.std(correction=0).item(), rel=1e-5)


def test_the_first_batch_is_shown_as_a_table_once(capsys):
    fit(ActivationMonitor(2), epochs=2)
    shown = capsys.readouterr().out
    assert shown.count("Activations at first") == 1
    assert "relu#3" in shown
    assert "zero on all of 128 samples" in shown
    fit(ActivationMonitor(2, table=False))
    assert "Activations" not in capsys.readouterr().out


def test_other_steps_have_neither_hooks_nor_mode_nor_measurement(monkeypatch):
    module, states, reads = Net(), [], []
    forward, read_out = module.forward, activations.ActivationRecord.read

    def look(x):
        states.append((len(_get_current_function_mode_stack()), len(module.last._forward_hooks)))
        return forward(x)

    monkeypatch.setattr(module, "forward", look)
    monkeypatch.setattr(
        activations.ActivationRecord, "read", lambda self: reads.append(len(states)) or read_out(self)
    )
    fit(ActivationMonitor(3, table=False), module)
    assert states == [(1, 1), (0, 0), (0, 0)] * 2 + [(1, 1), (0, 0)]
    assert reads == [1, 4, 7]
    assert "training_step" not in vars(module)


def test_no_value_is_asked_for_on_steps_that_are_not_measured(monkeypatch):
    asked, steps = [], []

    class Steps(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            steps.append(batch_idx)

    for name in ("item", "tolist", "cpu", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)

        def asking(tensor, *args, original=original):
            asked.append(len(steps) - 1)
            return original(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, asking)
    alone, watched = [], []
    for monitor, found in ((Callback(), alone), (ActivationMonitor(4, table=False), watched)):
        asked.clear()
        steps.clear()
        fit(monitor, callbacks=[monitor, Steps()])
        found += asked
    elsewhere = [[step for step in found if step in (1, 2, 3, 5, 6)] for found in (alone, watched)]
    assert elsewhere[0] == elsewhere[1]
    assert watched.count(4) > alone.count(4)


def test_dead_units_are_found_and_said_once():
    monitor = ActivationMonitor(1, table=False)
    with pytest.warns(UserWarning, match=r"dead units, step 7: 100% of the 32 units of `relu`") as said:
        fit(monitor, Net(bias=-50.0), epochs=2)
    found = monitor.findings[0]
    assert (found.check, found.status, found.causes[0]) == ("dead units", "FAIL", "dead-relu")
    assert sum("two observations" in str(warning.message) for warning in said) == 1


def test_saturation_is_found():
    monitor, module = ActivationMonitor(4, table=False), Net(torch.tanh)
    for layer in module.layers:
        nn.init.normal_(layer.weight, std=3.0)
    with pytest.warns(UserWarning, match="saturation, step 0"):
        trainer = fit(monitor, module)
    assert monitor.findings[0].causes[0] == "saturating-activation"
    assert trainer.callback_metrics["activations/saturated"] > 0.4


@pytest.mark.parametrize("act", [F.relu, F.gelu, torch.tanh])
def test_a_healthy_run_says_nothing(act, recwarn):
    monitor = ActivationMonitor(1, table=False)
    fit(monitor, Net(act), epochs=4)
    assert {finding.status for finding in monitor.findings} <= {"PASS", "SKIP"}
    assert "PASS" in {finding.status for finding in monitor.findings} or act is F.gelu
    assert not [w for w in recwarn if "expected" in str(w.message)]


def test_dead_is_only_said_of_512_samples():
    trainer = fit(ActivationMonitor(1, table=False), batches=5, size=100)
    assert "activations/dead" not in trainer.callback_metrics
    trainer = fit(ActivationMonitor(1, table=False), batches=6, size=100)
    assert "activations/dead" in trainer.callback_metrics


def test_the_history_is_thinned_and_stays_even(monkeypatch):
    monkeypatch.setattr("lightning_recipes.callbacks.activations._MOST_KEPT", 4)
    monitor = ActivationMonitor(1, table=False)
    fit(monitor, batches=14, size=4)
    assert [moment["step"] for moment in monitor.history] == [0, 4, 8, 12]


def test_a_resumed_run_goes_on_with_the_history(tmp_path):
    whole = ActivationMonitor(3, table=False)
    fit(whole, epochs=2)
    trainer = fit(ActivationMonitor(3, table=False))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, module = ActivationMonitor(3, table=False), Net()
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(1024, 8), torch.arange(1024) % 4)
    trainer = Trainer(**QUIET, max_epochs=2, callbacks=[resumed])
    trainer.fit(module, DataLoader(data, 128), ckpt_path=tmp_path / "half.ckpt")
    assert [moment["step"] for moment in resumed.history] == [moment["step"] for moment in whole.history]
    assert resumed.history[0]["layers"].keys() == whole.history[0]["layers"].keys()


def test_a_rehearsal_writes_nothing():
    fit(ActivationMonitor(table=False), fast_dev_run=True)
    assert not list(Path().glob("activations.*"))


def test_what_was_measured_before_an_error_is_written():
    class Failing(Net):
        def training_step(self, batch):
            if self.global_step == 3:
                raise RuntimeError("here")
            return super().training_step(batch)

    module = Failing()
    with pytest.raises(RuntimeError, match="here"):
        fit(ActivationMonitor(1, table=False), module)
    assert len(read()) == 9
    assert "training_step" not in vars(module)
    assert not module.last._forward_hooks


def test_a_compiled_module_is_left_alone():
    with pytest.warns(UserWarning, match="cannot look into a compiled module"):
        fit(ActivationMonitor(table=False), torch.compile(Net(), backend="eager"))


def test_activations_recomputed_in_the_backward_pass_are_measured_once():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(Net):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    monitor = ActivationMonitor(1, table=False)
    fit(monitor, Checkpointed(), batches=2)
    assert list(monitor.history[0]["layers"]) == ["relu", "relu#2", "relu#3"]
