"""InitialLossCheck, OverfitBatchCheck and TrainingDoctor within a fit."""

import json

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_recipes import ActivationMonitor, InitialLossCheck, OverfitBatchCheck, TrainingDoctor
from lightning_recipes.callbacks.examining import Examining
from lightning_recipes.utils.errors import UserError

from ..contract.toys import QUIET
from ..recipe.faulty import Net, Scans, SignFlipped, SoftmaxFirst, Zero
from .monitored import net, waits_by_step


def fitted(module, *callbacks, epochs=1, **options):
    torch.manual_seed(0)
    trainer = Trainer(**{**QUIET, "max_epochs": epochs, **options}, callbacks=list(callbacks))
    trainer.fit(module(), datamodule=Scans())
    return trainer


def statuses(callback):
    return {finding.check: finding.status for finding in callback.findings}


def test_a_healthy_first_loss():
    callback = InitialLossCheck()
    fitted(Net, callback, max_steps=1)
    assert statuses(callback) == dict.fromkeys(
        [
            "first step",
            "logits",
            "gradient at the logits",
            "label smoothing",
            "initial loss",
            "label independence",
        ],
        "PASS",
    )
    measured = next(f for f in callback.findings if f.check == "initial loss").evidence
    assert measured["expected"] == pytest.approx(2.302585, abs=1e-6)
    assert measured["loss"] == pytest.approx(2.3, abs=0.15)


def test_a_softmax_is_warned_of_and_strict_ends_the_run():
    with pytest.warns(UserWarning, match="logits .FAIL.*Hand the logits to the cross-entropy"):
        fitted(SoftmaxFirst, InitialLossCheck(), max_steps=2)
    with pytest.raises(UserError, match="To go on all the same, set `strict` to false"):
        fitted(SoftmaxFirst, InitialLossCheck(strict=True), max_steps=2)


def test_a_few_samples_are_learned_by_heart():
    callback = OverfitBatchCheck()
    fitted(Net, callback, max_steps=1)
    (finding,) = callback.findings
    assert (finding.check, finding.status) == ("overfit", "PASS")
    assert finding.evidence["own"]["accuracy"] == 1.0
    assert finding.evidence["samples"] == 32


@pytest.mark.parametrize(("module", "swap"), [(SignFlipped, "loss"), (Zero, "initialization")])
def test_the_one_change_that_repairs_is_found(module, swap):
    callback = OverfitBatchCheck(seconds=120)
    with pytest.warns(UserWarning, match="overfit"):
        fitted(module, callback, max_steps=1)
    (finding,) = callback.findings
    assert finding.status == "FAIL"
    assert [name for name, result in finding.evidence["swaps"].items() if result["passed"]] == [swap]


def test_the_doctor_goes_through_all_stages(tmp_path, capsys):
    doctor = TrainingDoctor(steps=30)
    fitted(Net, doctor, epochs=12, default_root_dir=tmp_path)
    found = statuses(doctor)
    assert set(found.values()) <= {"PASS", "INFO", "SKIP"}
    for check in (
        "logits",
        "overfit",
        "first steps",
        "batch norm",
        "modes in validation",
        "update ratio",
        "clipping",
    ):
        assert found[check] == "PASS", check
    written = json.loads((tmp_path / "findings.json").read_text())
    assert [finding["check"] for finding in written] == [finding.check for finding in doctor.findings]
    assert {path.name for path in tmp_path.iterdir()} >= {
        "update_ratio.png",
        "gradients.png",
        "activations.png",
    }
    out = capsys.readouterr().out
    assert "Before the first step" in out
    assert "After 30 steps" not in out  # nothing was wrong


def test_the_doctor_without_tables_warns(tmp_path):
    with pytest.warns(UserWarning, match="TrainingDoctor: gradient at the logits"):
        fitted(SignFlipped, TrainingDoctor(table=False, steps=3), max_steps=4, default_root_dir=tmp_path)


def test_monitors_of_ones_own_are_used(tmp_path):
    own = ActivationMonitor(5, table=False)
    doctor = TrainingDoctor(steps=3)
    fitted(Net, doctor, own, max_steps=12, default_root_dir=tmp_path)
    assert own in doctor.monitors
    assert sum(isinstance(monitor, ActivationMonitor) for monitor in doctor.monitors) == 1
    assert own.history


def test_what_was_found_is_written_after_an_error(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, *args):
            raise RuntimeError("stopped")

    doctor = TrainingDoctor()
    with pytest.raises(RuntimeError, match="stopped"):
        fitted(Net, doctor, Stop(), default_root_dir=tmp_path)
    assert json.loads((tmp_path / "findings.json").read_text())


def test_a_resumed_run_is_not_examined_again(tmp_path, monkeypatch):
    first = InitialLossCheck()
    trainer = fitted(Net, first)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed, new = InitialLossCheck(), OverfitBatchCheck()
    monkeypatch.setattr(InitialLossCheck, "stages", (("never", None),))
    trainer = Trainer(**{**QUIET, "max_epochs": 2}, callbacks=[resumed, new])
    trainer.fit(Net(), datamodule=Scans(), ckpt_path=tmp_path / "a.ckpt")
    assert resumed.findings == first.findings
    assert [(f.status, f.check) for f in new.findings] == [("SKIP", "examination")]


def test_who_examines_comes_before_who_watches():
    seen = []

    class Watching(Callback):
        def on_train_batch_start(self, trainer, *args):
            seen.append([isinstance(callback, Examining) for callback in trainer.callbacks])

    fitted(Net, ActivationMonitor(1, table=False), Watching(), InitialLossCheck(), max_steps=1)
    assert seen[0] == sorted(seen[0], reverse=True)


def test_a_monitor_of_activations_sees_nothing_of_the_copies():
    alone, beside = ActivationMonitor(1, table=False), ActivationMonitor(1, table=False)
    fitted(Net, alone, max_steps=3)
    fitted(Net, beside, OverfitBatchCheck(), max_steps=3)
    assert [moment["layers"] for moment in beside.history] == [moment["layers"] for moment in alone.history]


def test_the_host_waits_for_the_doctor_only_where_it_looks():
    alone = waits_by_step([], net(), epochs=2)
    doctor = TrainingDoctor(seconds=0.01, every_n_steps=10, table=False)
    watched = waits_by_step([doctor], net(), epochs=2)
    extra = [b - a for a, b in zip(alone, watched, strict=True)]
    new_epoch = 13  # behind twelve batches, whose metrics were read
    assert [step for step, waits in enumerate(extra, 1) if waits] == [1, 2, 3, 4, 5, 10, new_epoch, 20]
