"""A fit for a process of its own, which kills itself (-9) where it is told to."""

import os
import signal
from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_recipes import ExactResume
from tests.contract.cases import make
from tests.contract.toys import Toy, fit, loader, noisy_loader, toy


class Killer(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def run(name, kind, folder, kill_at=None, path=None):
    """Fit, with dropout, and checkpoints at each epoch's end ("ours") or within epochs ("noisy")."""
    exact = [] if name == "ExactResume" else [ExactResume()]
    when = {} if kind == "ours" else {"every_n_train_steps": 3}
    keep = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, save_last=True, **when)
    loaders = (loader(train=True), loader(16, train=False, seed=1)) if kind == "ours" else noisy_loader()
    trainer = fit(
        toy(Toy),
        [make(name), *exact, Killer(kill_at), keep],
        epochs=4,
        path=path,
        loaders=loaders,
        enable_checkpointing=True,
        default_root_dir=folder,
    )
    trainer.save_checkpoint(Path(folder) / "final.ckpt")
