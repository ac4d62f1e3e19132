"""A fit for two processes (gloo). Each leaves its state in FOLDER/rank-N.pt."""

import torch
from lightning.pytorch import Trainer
from torch import nn

from tests.contract.cases import make
from tests.contract.toys import QUIET, Toy, loader, toy


def run(name, folder):
    """Fit, each process on its half of every batch."""
    callback, module = make(name), toy(Toy, nn.ReLU())
    options = {**QUIET, "devices": 2, "strategy": "ddp", "max_epochs": 3, "use_distributed_sampler": False}
    trainer = Trainer(**options, callbacks=[callback], default_root_dir=folder)
    shard = {"world": 2, "rank": trainer.global_rank}
    trainer.fit(
        module,
        loader(train=True, batch_size=4, **shard),
        loader(18, train=False, seed=1, batch_size=4, **shard),
    )
    torch.save(
        {"callback": callback.state_dict(), "module": module.state_dict()},
        folder / f"rank-{trainer.global_rank}.pt",
    )
