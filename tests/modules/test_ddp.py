import json

import pytest
from lightning.pytorch import Trainer, seed_everything

from lightning_recipes import ImageClassifier, ImageFolderDataModule

from ..contract.toys import QUIET
from ..processes import run_module


@pytest.mark.slow
def test_two_processes_report_what_one_does(folder, tmp_path):
    seed_everything(0)
    data = ImageFolderDataModule(folder, batch_size=3, val_fraction=0.36)
    model = ImageClassifier("test_resnet", num_classes=3, in_chans=1)
    trainer = Trainer(**QUIET, max_epochs=1)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    (expected,) = trainer.validate(model, datamodule=data, verbose=False)
    assert len(data.splits["val"]) % 2 == 1  # an odd number: a sampler that pads would count one image twice

    done = run_module("tests.modules.ddp_run", tmp_path / "model.ckpt", folder, tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result) == {"val/loss", "val/acc", "val/f1", "val/auroc", "val/ece"}
    assert result == pytest.approx(expected, rel=1e-5)
