"""A probe and then fine-tuning on two processes (gloo), by both sides: FOLDER, for RANK.pt of each."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import BackboneFinetuning

from ..callbacks.transferred import Transfer, transfer, tuning
from ..contract.toys import QUIET, loader

SIDES = ("lightning", "ours")


class Plain(Transfer):
    """Its optimizer is given what asks for a gradient, as Lightning's class wants it."""

    def configure_optimizers(self):
        return self.make([p for p in self.parameters() if p.requires_grad])


def probing(side, at=1, **options):
    """Return the callback of a side: the head alone up to an epoch, then all, the backbone at a tenth."""
    if side == "lightning":
        return BackboneFinetuning(at, **options)
    return tuning(probe_epochs=at, **options)


if __name__ == "__main__":
    torch.set_num_threads(1)
    ends = {}
    for side in SIDES:
        module = transfer(Plain, drop=0.0)
        options = {
            **QUIET,
            "devices": 2,
            "strategy": "ddp",
            "max_epochs": 3,
            "use_distributed_sampler": False,
        }
        trainer = Trainer(**options, callbacks=[probing(side)])
        seed_everything(4, verbose=False)
        trainer.fit(module, loader(train=True, batch_size=4, world=2, rank=trainer.global_rank))
        ends[side] = {name: parameter.detach() for name, parameter in module.named_parameters()}
    torch.save(ends, Path(sys.argv[1]) / f"{trainer.global_rank}.pt")
