import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader

from lightning_recipes.callbacks import LearningCurves
from lightning_recipes.plots import learning_curves

from ..contract.toys import QUIET


class Steps(LightningModule):
    """Logs its number of steps, so that every point of a curve is a known number."""

    def __init__(self, val_loss=lambda steps: float(steps)):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))
        self.val_loss = val_loss

    def training_step(self, batch, batch_idx):
        self.log("train/loss", float(self.global_step + 1), on_step=True, on_epoch=True)
        return -self.w

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.val_loss(self.global_step))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


def fit(curves, module=None, **options):
    trainer = Trainer(**{**QUIET, "max_epochs": 4, "callbacks": [curves], **options})
    trainer.fit(module or Steps(), DataLoader(range(3)), DataLoader(range(1)))
    return trainer


def read(path="learning_curves.csv"):
    with Path(path).open() as file:
        return [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]


def test_each_point_stands_at_the_step_where_it_was_measured():
    curves = LearningCurves()
    fit(curves)
    assert read() == [
        {"epoch": e, "step": 3 * e + 3, "train/loss": 3 * e + 2, "val/loss": 3 * e + 3} for e in range(4)
    ]
    width, height = Image.open("learning_curves.png").size
    assert width > 300
    assert height > 200


def test_a_metric_of_every_second_epoch_has_half_of_the_points():
    fit(LearningCurves(), check_val_every_n_epoch=2)
    assert [row["val/loss"] for row in read()] == [None, 6, None, 12]
    assert [row["train/loss"] for row in read()] == [2, 5, 8, 11]


def test_validation_within_the_epoch():
    fit(LearningCurves(), val_check_interval=1, max_epochs=1)
    assert [(row["step"], row["val/loss"], row["train/loss"]) for row in read()] == [
        (1, 1, None),
        (2, 2, None),
        (3, 3, 2),
    ]


def test_the_sanity_check_is_no_point():
    curves = LearningCurves()
    fit(curves, num_sanity_val_steps=1)
    assert curves.rows[0]["step"] == 3


@pytest.mark.parametrize(("mode", "step"), [("min", 6), ("max", 12)])
def test_the_best_step(mode, step):
    curves = LearningCurves(mode=mode)
    fit(curves, Steps({0: 9.0, 3: 5.0, 6: 1.0, 9: float("nan"), 12: 7.0}.get))
    assert curves.best_step() == step


def test_no_best_without_the_metric():
    curves = LearningCurves(best="val/none")
    fit(curves)
    assert curves.best_step() is None


def test_an_exception_leaves_what_was_measured():
    class Failing(Steps):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                raise RuntimeError("failed on purpose")

    with pytest.raises(RuntimeError, match="failed on purpose"):
        fit(LearningCurves(), Failing())
    assert [row["step"] for row in read()] == [3, 6]


def test_a_rehearsal_writes_nothing():
    fit(LearningCurves(), fast_dev_run=True)
    assert list(Path().glob("learning_curves*")) == []


def test_a_folder_and_a_name():
    fit(LearningCurves("here/and/there", name="fold_1"))
    assert {path.name for path in Path("here/and/there").iterdir()} == {"fold_1.csv", "fold_1.png"}


def test_the_picture_has_a_panel_a_metric_and_a_line_a_stage():
    rows = [{"step": s, "train/loss": 1 / s, "val/loss": 2 / s, "val/acc": 0.5, "lr": 0.1} for s in (1, 2, 3)]
    figure = learning_curves(rows, best_step=2)
    assert [axis.get_title() for axis in figure.axes] == ["loss", "acc", "lr"]
    loss = figure.axes[0]
    assert [line.get_label() for line in loss.lines] == ["train", "val", "best"]
    assert loss.lines[1].get_ydata() == pytest.approx([2, 1, 2 / 3])


def test_a_picture_of_nothing_and_of_infinities():
    assert learning_curves([]).axes == []
    (axis,) = learning_curves([{"step": 1, "loss": float("inf")}, {"step": 2, "loss": 1.0}]).axes
    assert axis.lines[0].get_ydata() == pytest.approx([float("nan"), 1.0], nan_ok=True)
