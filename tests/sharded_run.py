"""A fit whose parameters are sharded over two processes (gloo): FOLDER NAME [CKPT]. Leaves FOLDER/NAME.pt."""

import os
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from lightning_recipes import EMA, EarlyStoppingWithRestore

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
INPUTS = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

    def configure_model(self):
        if self.device_mesh is not None:
            for layer in (self.net[0], self.net[2], self.net):
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])

    def train_dataloader(self):
        """Return batches of four: on two ranks, half of each."""
        world = self.trainer.world_size
        return DataLoader(INPUTS.view(4, world, -1, 4)[:, self.global_rank].flatten(0, 1), 4 // world)

    val_dataloader = train_dataloader

    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.net(batch).square().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def fit(folder, name, path=None, **options):
    average = EMA(0.5, warmup=False)
    keep = ModelCheckpoint(folder / name, filename="{epoch}", save_top_k=-1)
    callbacks = [average, EarlyStoppingWithRestore(patience=9, restore=False), keep]
    trainer = Trainer(**QUIET, **options, max_epochs=4, use_distributed_sampler=False, callbacks=callbacks)
    module = Net()
    trainer.fit(module, ckpt_path=path)
    found = {"average": average.average_weights(), "raw": average.raw_weights()}
    if trainer.is_global_zero:
        found["local"] = [tuple(getattr(p, "to_local", lambda p=p: p)().shape) for p in module.parameters()]
        found["checkpoint"] = torch.load(keep.best_model_path, weights_only=True)["state_dict"]
        torch.save(found, folder / f"{name}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, name, *path = sys.argv[1:]
    strategy = ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
    )
    if name == "whole" and "LOCAL_RANK" not in os.environ:
        fit(Path(folder), "one", devices=1)
    fit(Path(folder), name, *path, devices=2, strategy=strategy)
