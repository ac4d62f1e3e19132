"""Runs that are cut off and resumed: Lightning's checkpoints alone, and with `ExactResume`."""

import random
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from lightning_recipes import ExactResume

from .toys import both, trainer

BATCHES = 6  # an epoch


class Recorder(LightningModule):
    """Writes down the batches that it is given, and what it draws itself; `drawn_from` is the generator."""

    def __init__(self, drawn_from="torch"):
        super().__init__()
        self.layer, self.drawn_from = nn.Linear(1, 1), drawn_from
        self.batches, self.draws = [], []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch.flatten().tolist())
        draw = {"torch": lambda: torch.rand(()), "numpy": np.random.rand, "python": random.random}
        self.draws.append(float(draw[self.drawn_from]()))
        return self.layer(batch).mean() * self.draws[-1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class Noise(Dataset):
    """Items that are drawn anew whenever one is read, in the worker that reads it."""

    def __len__(self):
        return 2 * BATCHES

    def __getitem__(self, index):
        return index + torch.rand(1)


def numbers(**options):
    return DataLoader(torch.arange(2.0 * BATCHES).view(-1, 1), batch_size=2, shuffle=True, **options)


def own_generator():
    return numbers(generator=torch.Generator().manual_seed(5))


def own_sampler():
    data = torch.arange(2.0 * BATCHES).view(-1, 1)
    sampler = RandomSampler(data, generator=torch.Generator().manual_seed(5))
    return DataLoader(data, batch_size=2, sampler=sampler)


def read_in_workers():
    return DataLoader(Noise(), batch_size=2, shuffle=True, num_workers=2)


def run(side, loader, *, steps=3 * BATCHES, path=None, keep=(), drawn_from="torch"):
    """Return the module after a run, which begins as a process does that is told seed 1."""
    seed_everything(1, verbose=False)
    callbacks = [ExactResume()] if side == "ours" else []
    module = Recorder(drawn_from)
    used = trainer(*callbacks, *keep, epochs=-1, max_steps=steps, enable_checkpointing=bool(keep))
    with warnings.catch_warnings():  # of Lightning, that it cannot resume in mid-epoch
        warnings.filterwarnings("ignore", message=".*It is recommended|.*resum|.*callbacks used to create")
        used.fit(module, loader, ckpt_path=path)
    return module


def cut_off(side, loader, at, folder, **options):
    """Return the module of a whole run, and that of one that goes on from a checkpoint after `at` steps."""
    kept = ModelCheckpoint(folder, every_n_train_steps=at, save_top_k=-1, filename="{step}")
    whole = run(side, loader(), keep=[kept], **options)
    return whole, run(side, loader(), path=folder / f"step={at}.ckpt", **options)


def assert_goes_on(whole, resumed, at):
    assert resumed.batches == whole.batches[at:]
    assert resumed.draws == whole.draws[at:]
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@both
def test_the_next_epoch_has_an_order_of_its_own(side, tmp_path):
    assert_goes_on(*cut_off(side, numbers, BATCHES, tmp_path), BATCHES)


@both
def test_an_epoch_goes_on_with_what_was_not_seen(side, tmp_path):
    assert_goes_on(*cut_off(side, numbers, 8, tmp_path), 8)


@both
def test_the_first_epoch_goes_on_too(side, tmp_path):
    assert_goes_on(*cut_off(side, numbers, 2, tmp_path), 2)


@both
@pytest.mark.parametrize("drawn_from", ["torch", "numpy", "python"])
def test_what_the_module_draws_goes_on(side, drawn_from, tmp_path):
    assert_goes_on(*cut_off(side, numbers, 8, tmp_path, drawn_from=drawn_from), 8)


@both
@pytest.mark.parametrize("at", [BATCHES, 8])
def test_workers_draw_what_they_would_have_drawn(side, at, tmp_path):
    assert_goes_on(*cut_off(side, read_in_workers, at, tmp_path), at)


@both
@pytest.mark.parametrize("loader", [own_generator, own_sampler])
@pytest.mark.parametrize("at", [BATCHES, 8])
def test_generators_of_loaders_and_samplers_go_on(side, loader, at, tmp_path):
    assert_goes_on(*cut_off(side, loader, at, tmp_path), at)


@both
def test_a_resumed_run_can_be_resumed(side, tmp_path):
    kept = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole = run(side, numbers(), keep=[kept])
    again = ModelCheckpoint(tmp_path / "again", every_n_train_steps=1, save_top_k=-1, filename="{step}")
    run(side, numbers(), path=tmp_path / "step=4.ckpt", steps=10, keep=[again])
    assert_goes_on(whole, run(side, numbers(), path=tmp_path / "again" / "step=9.ckpt"), 9)
