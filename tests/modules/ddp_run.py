"""Validate on two processes (gloo), with splits that do not divide: CHECKPOINT FOLDER OUTPUT."""

import json
import sys

import torch
from lightning.pytorch import Trainer

from lightning_recipes import ImageClassifier, ImageFolderDataModule

if __name__ == "__main__":
    checkpoint, folder, output = sys.argv[1:]
    torch.set_num_threads(1)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False, max_epochs=1
    )
    model = ImageClassifier.load_from_checkpoint(checkpoint, weights_only=True)
    data = ImageFolderDataModule(folder, batch_size=3, val_fraction=0.36)
    (result,) = trainer.validate(model, datamodule=data, verbose=False)
    trainer.fit(model, datamodule=data)  # and training runs, with BatchNorm and as many batches on each rank
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    if trainer.is_global_zero:
        with open(output, "w") as file:
            json.dump(result, file)
