"""`ExactResume`: checkpoints of any moment, any loader, and what it says of what it cannot bring back."""

import random
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_recipes import ExactResume
from tests.beat.toys import trainer
from tests.contract.toys import loader as fast_loader
from tests.processes import run_module

NUMBERS = torch.arange(8.0).view(-1, 1)  # four batches of two


class Journal(LightningModule):
    """Writes down all that happens to it, with what is drawn then; a schedule for each epoch or step."""

    def __init__(self, interval="epoch", *, manual=False):
        super().__init__()
        self.layer, self.interval, self.journal = nn.Linear(1, 1), interval, []
        self.automatic_optimization = not manual

    def note(self, *what):
        self.journal.append((*what, self.current_epoch, self.global_step, float(torch.rand(()))))

    def training_step(self, batch, batch_idx):
        batch = batch[0] if isinstance(batch, (list, tuple)) else batch
        self.note(
            "batch", batch_idx, batch.flatten().tolist(), self.trainer.optimizers[0].param_groups[0]["lr"]
        )
        loss = self.layer(batch.flatten()[:, None]).mean() * torch.rand(())
        if not self.automatic_optimization:
            self.manual_backward(loss)
            if batch_idx % 3 == 2:  # gradients of three batches, across epochs too
                self.optimizers().step()
                self.optimizers().zero_grad()
        return loss

    def validation_step(self, batch, batch_idx):
        self.note("validation", batch_idx)

    def on_train_epoch_end(self):
        self.journal.append(("end of an epoch", self.current_epoch, self.global_step))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return [optimizer], [{"scheduler": schedule, "interval": self.interval}]


class Save(Callback):
    """Saves a checkpoint whenever a hook runs."""

    def __init__(self, folder, hook):
        self.paths = []

        def save(trainer, *_):
            if not trainer.sanity_checking:
                self.paths.append(folder / f"{len(self.paths)}.ckpt")
                trainer.save_checkpoint(self.paths[-1])

        setattr(self, hook, save)


def shuffled():
    return DataLoader(NUMBERS, batch_size=2, shuffle=True)


def run(*callbacks, path=None, module=None, training=shuffled, validation=shuffled, epochs=3, **options):
    """Return the module after a run, which begins as a process does that is told seed 1."""
    seed_everything(1, verbose=False)
    module = module or Journal()
    used = trainer(ExactResume(), *callbacks, epochs=epochs, **options)
    used.fit(module, training(), validation and validation(), ckpt_path=path)
    return module


def assert_ends_alike(whole, resumed):
    assert resumed.journal == whole.journal[len(whole.journal) - len(resumed.journal) :]
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


HOOKS = [
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
]
RUNS = [
    {},
    {"validation": None},
    {"check_val_every_n_epoch": 2},
    {"val_check_interval": 2},
    {"accumulate_grad_batches": 3},
    {"limit_train_batches": 3},
    {"epochs": -1, "max_steps": 10},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("options", RUNS, ids=str)
def test_every_checkpoint_of_every_kind_of_run_goes_on(hook, options, tmp_path):
    save = Save(tmp_path, hook)
    whole = run(save, **options)
    assert save.paths or (hook == "on_validation_end" and not options.get("validation", True))
    for path in save.paths:
        assert_ends_alike(whole, run(path=path, **options))


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_schedules_go_on(interval, tmp_path):
    save = Save(tmp_path, "on_train_batch_end")
    whole = run(save, module=Journal(interval))
    for path in save.paths:
        assert_ends_alike(whole, run(path=path, module=Journal(interval)))


def test_gradients_that_a_module_accumulates_by_hand_go_on(tmp_path):
    save = Save(tmp_path, "on_train_batch_end")
    whole = run(save, module=Journal(manual=True))
    for path in save.paths:
        assert_ends_alike(whole, run(path=path, module=Journal(manual=True)))


# Loaders


def torchdata_loader(workers=0):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    return stateful.StatefulDataLoader(NUMBERS, batch_size=2, shuffle=True, num_workers=workers)


class Counted(Dataset):
    """Counts what is read from it."""

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return len(NUMBERS)

    def __getitem__(self, index):
        self.reads += 1
        return NUMBERS[index]


@pytest.mark.parametrize("at", [1, 3, 5])
def test_torchdatas_loader_goes_on_without_a_replay(at, tmp_path):
    pytest.importorskip("torchdata")
    save = Save(tmp_path, "on_train_batch_end")
    whole = run(save, training=torchdata_loader)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not resumable")
        assert_ends_alike(whole, run(path=save.paths[at], training=torchdata_loader))


class Asking(Journal):
    """Asks for the length of the run, for which Lightning makes the loader's iterator at once."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches == 12
        return super().configure_optimizers()


@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize("training", [shuffled, torchdata_loader, lambda: fast_loader(32, train=True)])
def test_a_module_that_asks_for_the_length_of_the_run(at, training, tmp_path):
    save = Save(tmp_path, "on_train_batch_end")
    whole = run(save, module=Asking(), training=training)
    assert_ends_alike(whole, run(path=save.paths[at], module=Asking(), training=training))


class AskingInVain(Journal):
    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches == -1
        return super().configure_optimizers()


@pytest.mark.parametrize("kind", [Journal, AskingInVain])
def test_a_stateful_stream_goes_on_but_for_the_batch_fetched_ahead(kind, tmp_path):
    """Lightning saves the state behind that batch; a warning names it."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def training():
        return stateful.StatefulDataLoader(Stream(), batch_size=2)

    def batches(module):
        return [what[2] for what in module.journal if what[0] == "batch"]

    save = Save(tmp_path, "on_train_batch_end")
    whole = run(save, module=kind(), training=training)
    with pytest.warns(UserWarning, match="the batch that is fetched ahead from StatefulDataLoader"):
        resumed = run(path=save.paths[5], module=kind(), training=training)
    assert batches(resumed) == batches(whole)[7:]


@pytest.mark.parametrize("at", [0, 5])
def test_torchdatas_loader_with_workers(at, tmp_path):
    pytest.importorskip("torchdata")
    save = Save(tmp_path, "on_train_batch_end")
    options = {"training": lambda: torchdata_loader(2), "epochs": 2}
    whole = run(save, **options)
    assert_ends_alike(whole, run(path=save.paths[at], **options))


@pytest.mark.parametrize("at", [2, 3, 6])
def test_our_loaders_go_on_without_a_replay(at, tmp_path, monkeypatch):
    def training():
        return fast_loader(32, train=True)

    save = Save(tmp_path, "on_train_batch_end")
    whole = run(save, training=training)
    kind, read = type(training()), []
    make = kind.make
    monkeypatch.setattr(kind, "make", lambda self: (read.append(batch) or batch for batch in make(self)))
    resumed = run(path=save.paths[at], training=training)
    assert_ends_alike(whole, resumed)
    assert len(read) == sum(what[0] == "batch" for what in resumed.journal) == 12 - at - 1


def test_a_replay_reads_the_epoch_again_and_nothing_else(tmp_path):
    save = Save(tmp_path, "on_train_batch_end")
    run(save)
    data = Counted()
    run(path=save.paths[5], training=lambda: DataLoader(data, batch_size=2, shuffle=True))
    assert data.reads == 2 * len(NUMBERS)  # the second epoch, of which two batches were seen, and the third


def said(recorded):
    return [str(each.message) for each in recorded if "Resuming is exact but" in str(each.message)]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(NUMBERS)


class Plain:
    def __iter__(self):
        return iter(NUMBERS.split(2))


class Generating(Counted):
    def __init__(self, generator):
        super().__init__()
        self.noise = generator


@pytest.mark.parametrize(
    ("loader", "part"),
    [
        (lambda: DataLoader(Stream(), batch_size=2), "the order of Stream, which is replayed"),
        (
            lambda: DataLoader(NUMBERS, batch_size=2, num_workers=1, persistent_workers=True),
            "workers that outlive an epoch (set `persistent_workers=False`)",
        ),
        (Plain, "the order of Plain (give it `state_dict`"),
        (
            lambda: DataLoader(Generating(np.random.default_rng(1)), batch_size=2),
            "`Generating.noise`, a generator of its own",
        ),
        (lambda: DataLoader(Generating(random.Random(1)), batch_size=2), "`Generating.noise`"),
    ],
)
def test_what_cannot_be_made_exact_is_named(loader, part):
    with pytest.warns(UserWarning, match="Resuming is exact but") as recorded:
        run(training=loader, epochs=1)
    assert part in said(recorded)[0]


def test_nothing_is_said_of_what_is_exact(recwarn):
    run(epochs=1)
    assert not said(recwarn)


def test_metrics_of_an_epoch_that_was_cut_off_are_named(tmp_path):
    save = Save(tmp_path, "on_train_batch_end")
    run(save)
    with pytest.warns(UserWarning, match="Resuming is exact but") as recorded:
        run(path=save.paths[1])
    assert said(recorded) == [
        "Resuming is exact but for the metrics of this epoch's training, which count only what follows."
    ]


def test_a_stream_goes_on_from_its_replay(tmp_path):
    def training():
        return DataLoader(Stream(), batch_size=2)

    save = Save(tmp_path, "on_train_batch_end")
    whole = run(save, training=training)
    for path in save.paths:
        assert_ends_alike(whole, run(path=path, training=training))


def test_a_run_without_the_callback_can_be_resumed_with_it(tmp_path):
    save = Save(tmp_path, "on_train_epoch_end")
    seed_everything(1, verbose=False)
    trainer(save, epochs=2).fit(Journal(), shuffled(), shuffled())
    module = run(path=save.paths[0])
    assert [what[1] for what in module.journal if what[0] == "end of an epoch"] == [1, 2]


def test_two_runs_of_one_process_differ():
    """The callback brings back what a checkpoint holds, and does not seed."""
    callback, first, second = ExactResume(), Journal(), Journal()
    used = [trainer(callback, epochs=1), trainer(callback, epochs=1)]
    for each, module in zip(used, (first, second), strict=True):
        each.fit(module, shuffled())
    assert all(a != b for a, b in pairwise([first.journal, second.journal]))


@pytest.mark.slow
@pytest.mark.parametrize("at", [4, 6])
def test_each_of_two_processes_goes_on(at, tmp_path):
    """Between two epochs, and within one. See `resumed_run`."""
    for arguments in (["whole"], ["rest", tmp_path / "whole" / f"step={at}.ckpt"]):
        done = run_module("tests.callbacks.resumed_run", tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
    journals = []
    for rank in (0, 1):
        whole, rest = (torch.load(tmp_path / f"{name}-{rank}.pt") for name in ("whole", "rest"))
        assert rest["journal"] == whole["journal"][at:]
        assert all(torch.equal(rest["weights"][name], tensor) for name, tensor in whole["weights"].items())
        journals.append(rest["journal"])
    assert journals[0] != journals[1]
