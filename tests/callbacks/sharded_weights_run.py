"""A fit with a penalty and a bound on sharded weights, in two processes (gloo) and in one: FOLDER."""

import os
import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_recipes import MaxNorm, WeightPenalty

from ..sharded_run import QUIET, Net
from .monitored import Remembering


def fit(folder, name, **options):
    callbacks, logger = [WeightPenalty(0.01, l2=0.02), MaxNorm(0.05)], Remembering()
    settings = {**QUIET, "logger": logger, "enable_checkpointing": False, "log_every_n_steps": 1}
    trainer = Trainer(**settings, **options, max_epochs=4, use_distributed_sampler=False, callbacks=callbacks)
    module = Net()
    trainer.fit(module)
    weights = {n: getattr(w, "full_tensor", lambda w=w: w)() for n, w in module.state_dict().items()}
    if trainer.is_global_zero:
        found = {"weights": weights, "penalty": torch.tensor(logger.values("train/penalty"))}
        torch.save(found, folder / f"{name}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    if "LOCAL_RANK" not in os.environ:
        fit(folder, "whole", devices=1)
    strategy = ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
    )
    fit(folder, "sharded", devices=2, strategy=strategy)
