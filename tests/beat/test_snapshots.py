"""Snapshot ensembles, of which Lightning has none: what others' lack, and ours must have."""

import csv
from itertools import pairwise
from math import cos, pi

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_recipes import SWA, EnsembleClassifier, ExactResume, ImageClassifier, SnapshotEnsemble
from lightning_recipes.datamodules import DigitsDataModule
from lightning_recipes.scores import nll
from lightning_recipes.utils.errors import UserError

from .toys import QUIET

STEPS = 6  # batches an epoch
RATES = (0.1, 0.01)  # of two groups


class Line(LightningModule):
    """Two classes, told apart by two weights with a rate each; the rates of its steps are kept."""

    def __init__(self, *, schedule=False):
        super().__init__()
        self.slope, self.bias = nn.Parameter(torch.zeros(1, 2)), nn.Parameter(torch.zeros(2))
        self.schedule, self.rates = schedule, []

    def forward(self, inputs):
        return inputs @ self.slope + self.bias

    def training_step(self, batch, batch_idx):
        self.rates.append(tuple(group["lr"] for group in self.trainer.optimizers[0].param_groups))
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        groups = [{"params": [p], "lr": rate} for p, rate in zip((self.slope, self.bias), RATES, strict=True)]
        optimizer = torch.optim.SGD(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}] if self.schedule else []


def data(size=2 * STEPS):
    inputs = torch.randn(size, 1, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0.3).long()), batch_size=2)


def run(callback, *others, epochs=4, path=None, module=None, folder=None, **options):
    """Return the module after a run of 24 optimizer steps."""
    callback.dirpath = folder or callback.dirpath
    module = module or Line()
    seed_everything(1, verbose=False)
    settings = {**QUIET, "max_epochs": epochs, "callbacks": [callback, *others], **options}
    Trainer(**settings).fit(module, data(), data(32), ckpt_path=path)
    return module


def formula(steps, cycles, largest):
    """Return the paper's rate of each step t, from 1."""
    length = -(-steps // cycles)
    return [largest / 2 * (cos(pi * ((t - 1) % length) / length) + 1) for t in range(1, steps + 1)]


def test_the_rate_of_every_step_is_the_formulas(tmp_path):
    module = run(SnapshotEnsemble(4, lr_max=0.5), folder=tmp_path)
    expected = formula(24, 4, 0.5)
    assert [first for first, _ in module.rates] == pytest.approx(expected, rel=1e-12)
    assert [second for _, second in module.rates] == pytest.approx(
        [rate / 10 for rate in expected], rel=1e-12
    )


def test_the_optimizers_own_rate_is_the_highest_by_default(tmp_path):
    module = run(SnapshotEnsemble(2), folder=tmp_path)
    assert [first for first, _ in module.rates] == pytest.approx(formula(24, 2, 0.1), rel=1e-12)


def test_accumulated_batches_are_one_step(tmp_path):
    module = run(SnapshotEnsemble(3, lr_max=0.5), folder=tmp_path, accumulate_grad_batches=2)
    assert [first for first, _ in module.rates[::2]] == pytest.approx(formula(12, 3, 0.5), rel=1e-12)
    assert module.rates[::2] == module.rates[1::2]


def test_cycles_that_do_not_divide_the_run_differ_by_a_step_and_all_come_down(tmp_path):
    callback = SnapshotEnsemble(5, lr_max=1.0)
    rates = [first for first, _ in run(callback, folder=tmp_path).rates]
    restarts = [step for step, rate in enumerate(rates) if rate == 1.0]
    assert restarts == [0, 5, 10, 15, 20]
    assert [member.step for member in callback.members] == [5, 10, 15, 20, 24]
    assert max(rates[step - 1] for step in (5, 10, 15, 20, 24)) < 0.15


class Weights(Callback):
    """Keeps the weights after each step."""

    def __init__(self):
        self.after = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.after[trainer.global_step] = {n: p.detach().clone() for n, p in pl_module.named_parameters()}


def test_there_is_a_member_at_each_minimum(tmp_path):
    callback, weights = SnapshotEnsemble(4, lr_max=0.5), Weights()
    run(callback, weights, folder=tmp_path)
    assert [(member.cycle, member.step) for member in callback.members] == [(1, 6), (2, 12), (3, 18), (4, 24)]
    for member in callback.members:
        stored = torch.load(member.path, weights_only=True)["state_dict"]
        for name, tensor in weights.after[member.step].items():
            assert torch.equal(stored[name], tensor)


def test_fast_geometric_ensembling(tmp_path):
    """After half of the run under the module's own schedule: down and up, and a member in the middle."""
    callback = SnapshotEnsemble(2, lr_max=0.5, lr_min=0.1, cycle="triangle", start=0.5, replace_schedule=True)
    rates = [first for first, _ in run(callback, module=Line(schedule=True), folder=tmp_path).rates]
    assert rates[:12] == [0.05] * 12
    down = [0.1 + 0.4 * abs(1 - 2 * t / 6) for t in range(1, 7)]
    assert rates[12:] == pytest.approx(2 * down)
    assert [member.step for member in callback.members] == [15, 21]


def test_a_schedule_of_the_modules_own_is_not_overruled_silently(tmp_path):
    with pytest.raises(UserError, match=r"a schedule of its own \(LambdaLR\). Set `replace_schedule=True`"):
        run(SnapshotEnsemble(2), module=Line(schedule=True), folder=tmp_path)
    module = run(SnapshotEnsemble(2, replace_schedule=True), module=Line(schedule=True), folder=tmp_path)
    assert [first for first, _ in module.rates] == pytest.approx(formula(24, 2, 0.1), rel=1e-12)


def test_two_callbacks_cannot_both_set_the_rate(tmp_path):
    with pytest.raises(UserError, match="SnapshotEnsemble and SWA would both set the learning rate"):
        run(SnapshotEnsemble(2), SWA(), folder=tmp_path)
    run(SnapshotEnsemble(2), SWA(anneal="none"), folder=tmp_path)


@pytest.mark.parametrize(
    ("options", "run_options", "message"),
    [
        ({"cycles": 13}, {}, "`cycles=13` do not fit the 24 optimizer steps: .* at most 12 do"),
        ({"cycles": 7, "start": 0.5}, {}, "`cycles=7` do not fit the 12 optimizer steps: .* at most 6 do"),
        ({"cycles": 2}, {"epochs": -1}, "Cycles need a run with an end that is known. Set `max_epochs`"),
        ({"cycles": 2, "lr_min": 0.1}, {}, "`lr_min` must be below the rate .* begins with, 0.1, got 0.1"),
    ],
)
def test_cycles_that_do_not_fit_the_run(options, run_options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(SnapshotEnsemble(**options), folder=tmp_path, **run_options)


@pytest.mark.parametrize("at", [1, 5, 6, 7, 15, 23])
def test_it_resumes_in_mid_cycle(at, tmp_path):
    kept = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    options = {"folder": tmp_path / "members"}
    whole = SnapshotEnsemble(4, lr_max=0.5)
    module = run(whole, kept, ExactResume(), enable_checkpointing=True, **options)
    files = {path.name: torch.load(path, weights_only=True) for path in options["folder"].iterdir()}
    for path in options["folder"].iterdir():  # as they were when the run was cut off
        if path.name == "ensemble.ckpt" or int(path.stem[-1]) > at // 6:
            path.unlink()
    resumed = SnapshotEnsemble(4, lr_max=0.5)
    rest = run(resumed, ExactResume(), path=tmp_path / f"step={at}.ckpt", **options)
    assert rest.rates == module.rates[at:]
    assert resumed.members == whole.members
    for name, stored in files.items():
        again = torch.load(options["folder"] / name, weights_only=True)
        assert again.keys() == stored.keys()
        assert all(torch.equal(again["state_dict"][n], t) for n, t in stored["state_dict"].items())


def test_a_member_that_is_gone_is_named(tmp_path):
    kept = ModelCheckpoint(tmp_path, every_n_train_steps=8, save_top_k=-1, filename="{step}")
    run(SnapshotEnsemble(4), kept, folder=tmp_path / "members", enable_checkpointing=True)
    (tmp_path / "members" / "member-1.ckpt").unlink()
    with pytest.raises(
        UserError, match=r"The member of cycle 1 is gone: there is no member-1\.ckpt in .*members"
    ):
        run(SnapshotEnsemble(4), path=tmp_path / "step=8.ckpt", folder=tmp_path / "members")


def test_a_run_of_another_length_is_refused(tmp_path):
    kept = ModelCheckpoint(tmp_path, every_n_train_steps=8, save_top_k=-1, filename="{step}")
    run(SnapshotEnsemble(4), kept, folder=tmp_path / "members", enable_checkpointing=True)
    with pytest.raises(UserError, match="was planned for 24 optimizer steps and now has 36"):
        run(SnapshotEnsemble(4), path=tmp_path / "step=8.ckpt", folder=tmp_path / "members", epochs=6)


class Spoiled(Line):
    """What it predicts in its first cycle is the opposite of what it has learned."""

    def predict_step(self, batch, batch_idx):
        sign = -20 if self.trainer.global_step <= 6 else 1
        return (sign * self(batch[0])).softmax(1)


def test_weak_members_are_left_out(tmp_path):
    callback = SnapshotEnsemble(4, lr_max=2.0)
    run(callback, module=Spoiled(), folder=tmp_path / "chosen")
    assert not callback.members[0].kept
    scores = [torch.load(m.path, weights_only=True)["validation"] for m in callback.members]
    targets = scores[0]["targets"]
    pool = torch.stack([s["probabilities"] for s, m in zip(scores, callback.members, strict=True) if m.kept])
    whole = torch.stack([s["probabilities"] for s in scores])
    assert nll(pool.mean(0), targets) < nll(whole.mean(0), targets)
    every = SnapshotEnsemble(4, lr_max=2.0, drop_weak=False)
    run(every, module=Spoiled(), folder=tmp_path / "all")
    assert all(member.kept for member in every.members)


class Diverging(Line):
    """From step 15 on its weights are not finite."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.trainer.global_step == 15:
            self.bias.data.fill_(float("nan"))


def test_a_member_that_diverged_ends_nothing_and_is_left_out(tmp_path):
    callback = SnapshotEnsemble(4, lr_max=0.5)
    with pytest.warns(UserWarning, match="The member of cycle 3 is left out: what it predicts is not finite"):
        run(callback, module=Diverging(), folder=tmp_path)
    assert len(callback.members) == 4
    assert not any(member.kept for member in callback.members[2:])
    assert any(member.kept for member in callback.members[:2])
    stored = torch.load(tmp_path / "ensemble.ckpt", weights_only=True)["state_dict"]
    assert all(bool(tensor.isfinite().all()) for tensor in stored.values())


def test_each_validation_loader_is_cut_as_the_trainer_cuts_it(tmp_path):
    """Half of 16 and of 4 batches of two."""
    callback = SnapshotEnsemble(1, dirpath=tmp_path)
    settings = {**QUIET, "max_epochs": 1, "callbacks": [callback], "limit_val_batches": 0.5}

    class Two(Line):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            pass

    Trainer(**settings).fit(Two(), data(), [data(32), data(8)])
    stored = torch.load(callback.members[0].path, weights_only=True)["validation"]
    expected = torch.cat([torch.cat([b[1] for b in list(data(size))[: size // 4]]) for size in (32, 8)])
    assert torch.equal(stored["targets"], expected)


def test_members_that_cannot_be_scored_are_kept(tmp_path):
    class Ignoring(SnapshotEnsemble):
        def predict(self, pl_module, batch):
            probabilities, targets = super().predict(pl_module, batch)
            return probabilities, targets - 1  # as with an index that is ignored

    callback = Ignoring(2)
    with pytest.warns(
        UserWarning, match=r"cycle 1 is not validated, and is kept: UserError: The targets must"
    ):
        run(callback, folder=tmp_path)
    assert [member.kept for member in callback.members] == [True, True]


def test_probabilities_of_few_bits_are_not_taken_for_logits():
    class Given(LightningModule):
        def predict_step(self, batch, batch_idx):
            return batch[0]

    probabilities = torch.randn(64, 100, generator=torch.Generator().manual_seed(0)).mul(2).softmax(1)
    batch = probabilities.bfloat16(), torch.zeros(64, dtype=torch.long)
    given, _ = SnapshotEnsemble(2).predict(Given(), batch)
    assert torch.equal(given, probabilities.bfloat16().float())
    logits, _ = SnapshotEnsemble(2).predict(Given(), (probabilities.log(), batch[1]))
    torch.testing.assert_close(logits, probabilities)


@pytest.mark.parametrize("options", [{"cycles": 8}, {"start": 0.5}, {"cycle": "triangle"}])
def test_cycles_do_not_move_on_resume(options, tmp_path):
    kept = ModelCheckpoint(tmp_path, every_n_train_steps=8, save_top_k=-1, filename="{step}")
    run(SnapshotEnsemble(4), kept, folder=tmp_path / "members", enable_checkpointing=True)
    with pytest.raises(UserError, match=r"after the steps \[6, 12, 18, 24\], and now after"):
        run(
            SnapshotEnsemble(**{"cycles": 4, **options}),
            path=tmp_path / "step=8.ckpt",
            folder=tmp_path / "members",
        )


def test_a_run_by_hand_has_a_cycle_of_batches(tmp_path):
    class ByHand(Line):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(super().training_step(batch, batch_idx))
            if batch_idx % 3 == 2:
                self.optimizers().step()
                self.optimizers().zero_grad()

    callback = SnapshotEnsemble(4, lr_max=0.5)
    module = run(callback, module=ByHand(), folder=tmp_path)
    assert [first for first, _ in module.rates] == pytest.approx(formula(24, 4, 0.5), rel=1e-12)
    assert [member.epoch for member in callback.members] == [0, 1, 2, 3]


def test_a_run_that_began_without_it_has_the_members_that_are_left(tmp_path):
    kept = ModelCheckpoint(tmp_path, filename="early", save_top_k=-1)
    settings = {**QUIET, "max_epochs": 2, "callbacks": [kept], "enable_checkpointing": True}
    Trainer(**settings).fit(Line(), data(), data(32))
    callback = SnapshotEnsemble(4, lr_max=0.5)
    with pytest.warns(UserWarning, match="2 of 4 cycles are past and have no member"):
        module = run(callback, path=tmp_path / "early.ckpt", folder=tmp_path / "members")
    assert [first for first, _ in module.rates] == pytest.approx(formula(24, 4, 0.5)[12:], rel=1e-12)
    assert [member.step for member in callback.members] == [18, 24]


def test_a_loader_without_a_length_needs_max_steps(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(data().dataset)

    callback, batches = SnapshotEnsemble(2, dirpath=tmp_path), DataLoader(Stream(), batch_size=2)
    endless = Trainer(**QUIET, max_epochs=2, callbacks=[callback])
    with pytest.raises(UserError, match="no length, `max_steps` or `limit_train_batches`"):
        endless.fit(Line(), batches)
    Trainer(**QUIET, max_steps=10, callbacks=[callback]).fit(Line(), batches)
    assert [member.step for member in callback.members] == [5, 10]


def test_a_folder_that_cannot_be_made_is_found_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"`dirpath` .*file/members cannot be made: Not a directory"):
        run(SnapshotEnsemble(2), folder=tmp_path / "file" / "members")


def test_an_early_stop_leaves_an_ensemble_of_the_members_so_far(tmp_path):
    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    callback = SnapshotEnsemble(4)
    with pytest.warns(UserWarning, match="ended after 12 of 24 steps: the ensemble has 2 of 4 members"):
        run(callback, Stop(), folder=tmp_path)
    assert [member.step for member in callback.members] == [6, 12]
    assert (tmp_path / "ensemble.ckpt").exists()


# The whole way, with a real classifier


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A snapshot ensemble on the digits: the callback, the data, and the folder."""
    folder = tmp_path_factory.mktemp("run") / "snapshots"
    seed_everything(0, verbose=False)
    callback = SnapshotEnsemble(3, lr_max=0.01, replace_schedule=True, dirpath=folder, drop_weak=False)
    digits = DigitsDataModule(batch_size=64)
    model = ImageClassifier("test_resnet", in_chans=1, image_size=32)
    logger = CSVLogger(folder.parent)
    Trainer(**{**QUIET, "max_epochs": 3, "callbacks": [callback], "logger": logger}).fit(model, digits)
    return callback, digits, folder, logger


def test_one_file_loads_as_an_ensemble_whose_probabilities_are_the_mean(trained):
    callback, digits, folder, _ = trained
    ensemble = EnsembleClassifier.load_from_checkpoint(folder / "ensemble.ckpt").eval()
    members = [ImageClassifier.load_from_checkpoint(member.path).eval() for member in callback.members]
    digits.setup("validate")
    batch = next(iter(digits.val_dataloader()))
    with torch.no_grad():
        each = torch.stack([model.predict_step(batch, 0) for model in members])
        torch.testing.assert_close(ensemble.predict_step(batch, 0), each.mean(0))
    assert all(not torch.equal(a, b) for a, b in pairwise(each))


def test_members_and_the_ensemble_are_validated(trained):
    callback, digits, folder, logger = trained
    quiet = Trainer(**QUIET)
    for member in callback.members:
        model = ImageClassifier.load_from_checkpoint(member.path)
        (measured,) = quiet.validate(model, datamodule=digits, verbose=False)
        assert measured["val/acc"] == pytest.approx(member.acc)
        assert measured["val/loss"] == pytest.approx(member.nll, rel=1e-4)
    ensemble = EnsembleClassifier.load_from_checkpoint(folder / "ensemble.ckpt")
    (measured,) = quiet.validate(ensemble, datamodule=digits, verbose=False)
    with open(logger.experiment.metrics_file_path, newline="") as file:
        *_, last = [row for row in csv.DictReader(file) if row["snapshots/ensemble_acc"]]
    assert measured["val/acc"] == pytest.approx(float(last["snapshots/ensemble_acc"]))
    assert measured["val/loss"] == pytest.approx(float(last["snapshots/ensemble_nll"]), rel=1e-4)
