"""A fit in a process of its own: NAME FOLDER KILL_AT CKPT. At optimizer step KILL_AT it kills itself (-9)."""

import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from tests.contract.cases import make
from tests.contract.toys import Toy, fit, toy


class Killer(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    name, folder, kill_at, path = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    callbacks = [
        make(name),
        Killer(kill_at),
        ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_last=True),
    ]
    fit(
        toy(Toy, nn.BatchNorm1d(4)),
        callbacks,
        epochs=4,
        path=path or None,
        enable_checkpointing=True,
        default_root_dir=folder,
    )
