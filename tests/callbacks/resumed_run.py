"""A fit on two processes (gloo), with draws of each rank: FOLDER NAME [CKPT]. Leaves FOLDER/NAME-RANK.pt."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lightning_recipes import EMA, ExactResume
from tests.contract.toys import QUIET, Noisy


class Drawing(LightningModule):
    """Dropout, noise in the data, and a journal of both."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Dropout(0.5))
        self.journal = []

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.journal.append([float(batch[0].sum()), float(loss.detach())])
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, name, *path = sys.argv[1:]
    keep = ModelCheckpoint(Path(folder) / name, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    options = {**QUIET, "devices": 2, "strategy": "ddp", "max_epochs": 3, "enable_checkpointing": True}
    trainer = Trainer(**options, callbacks=[ExactResume(), EMA(0.9), keep])
    seed_everything(7 + trainer.global_rank, verbose=False)
    module = Drawing()
    trainer.fit(
        module, DataLoader(Noisy(32), batch_size=4, shuffle=True), ckpt_path=path[0] if path else None
    )
    found = {"journal": module.journal, "weights": dict(module.state_dict())}
    torch.save(found, Path(folder) / f"{name}-{trainer.global_rank}.pt")
