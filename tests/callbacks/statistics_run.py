"""SWA with BatchNorm on two processes (gloo), each with data of its own: FOLDER. Leaves FOLDER/rank-N.pt."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_recipes import SWA
from tests.beat.toys import QUIET, STEPS, Counter

PAIRS = ([1.0, 3.0], [3.0, 9.0])  # of each rank: means 2 and 6, unbiased variances 2 and 18


class Normed(Counter):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1, affine=False)

    def forward(self, inputs):
        return self.norm(inputs * self.w.detach())

    def training_step(self, batch, batch_idx):
        self(batch[0])
        return super().training_step(batch, batch_idx)

    def train_dataloader(self):
        pair = torch.tensor(PAIRS[self.global_rank]).view(2, 1)
        return DataLoader(TensorDataset(pair.repeat(STEPS, 1)), batch_size=2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = {**QUIET, "devices": 2, "strategy": "ddp", "max_epochs": 4, "use_distributed_sampler": False}
    module = Normed()
    trainer = Trainer(**options, callbacks=[SWA(2, anneal="none")])
    trainer.fit(module)
    found = {"mean": module.norm.running_mean, "var": module.norm.running_var, "w": module.w.detach()}
    torch.save(found, Path(sys.argv[1]) / f"rank-{trainer.global_rank}.pt")
