"""Test-time augmentation on the command line: the checkpoint's own, or another."""

import csv
from pathlib import Path

import pytest
import torch

from lightning_recipes import EnsembleClassifier, ImageClassifier, ImageFolderDataModule


@pytest.fixture(scope="module")
def stored(trained, tmp_path_factory):
    """The trained run's checkpoint, as a run with `tta: ten_crop` would have written it."""
    checkpoint = torch.load(trained[0] / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["tta"] = "ten_crop"
    path = tmp_path_factory.mktemp("stored") / "ten.ckpt"
    torch.save(checkpoint, path)
    return path


def measure(run, path, png, *more):
    arguments = ("--data", "ImageFolderDataModule", "--data.root", png, "--ckpt_path", path)
    status, out, err = run("test", *arguments, *more)
    assert status == 0, err
    (row,) = [line for line in out.splitlines() if line.startswith("│")]
    return float(row.split("│")[2])  # the loss


def expected(path, png, mode):
    data = ImageFolderDataModule(png)
    data.setup("test")
    model = ImageClassifier.load_from_checkpoint(path, weights_only=True, tta=mode).eval()
    losses, count = 0.0, 0
    with torch.no_grad():
        for images, targets in data.test_dataloader():
            likely = model.predict_step(images)
            losses -= float(likely[torch.arange(len(targets)), targets].log().sum())
            count += len(targets)
    return losses / count


@pytest.mark.parametrize("mode", ["none", "flip"])
def test_the_command_line_goes_before_the_checkpoint(run, trained, stored, mode):
    _, png = trained
    told = expected(stored, png, mode)
    assert measure(run, stored, png, "--model.tta", mode) == pytest.approx(told, abs=1e-4)


def test_without_an_argument_it_is_the_checkpoint_s(run, trained, stored):
    directory, png = trained
    ten = expected(stored, png, "ten_crop")
    assert measure(run, stored, png) == pytest.approx(ten, abs=1e-4)
    assert abs(ten - expected(stored, png, "none")) > 1e-3
    assert measure(run, directory / "best.ckpt", png, "--model.tta", "ten_crop") == pytest.approx(
        ten, abs=1e-4
    )


def test_predict_takes_another(run, trained, stored):
    _, png = trained
    image = next((png / "two").iterdir())
    chances = {}
    for mode in (None, "ten_crop", "none", "flip"):
        asked = () if mode is None else ("--tta", mode)
        status, _, err = run("predict", "--ckpt_path", stored, image, "--output", f"{mode}.csv", *asked)
        assert status == 0, err
        with Path(f"{mode}.csv").open() as file:
            (row,) = csv.DictReader(file)
        chances[mode] = row["probability"]
    assert chances[None] == chances["ten_crop"]
    assert len(set(chances.values())) == 3


def refused(run, says, *arguments):
    status, _, err = run(*arguments)
    assert status == 2
    assert says in err


def test_what_predict_and_test_refuse(run, trained, stored):
    _, png = trained
    refused(
        run,
        "`--tta` must be one of none, flip, ten_crop, multi_scale, got 'tencrop'",
        *("predict", "--ckpt_path", stored, png, "--tta", "tencrop"),
    )
    upright = torch.load(stored, weights_only=True)
    upright["lightning_recipes"]["horizontal_flip"] = False
    torch.save(upright, "upright.ckpt")
    says = "left and right matter. Take `ten_crop`"
    refused(run, says, "predict", "--ckpt_path", "upright.ckpt", png, "--tta", "flip")
    data = ("--data", "ImageFolderDataModule", "--data.root", png)
    refused(run, says, "test", *data, "--ckpt_path", "upright.ckpt", "--model.tta", "flip")


def test_an_ensemble_takes_none(run, trained):
    directory, png = trained
    EnsembleClassifier.from_checkpoints([directory / "best.ckpt"]).save("pool.ckpt")
    refused(
        run,
        "an ensemble, which takes no `--tta`",
        "predict",
        "--ckpt_path",
        "pool.ckpt",
        png,
        "--tta",
        "flip",
    )
    config = ("--config", directory / "config.yaml", "--ckpt_path", "pool.ckpt")
    refused(run, "an ensemble, which takes no `--model.tta`", "test", *config, "--model.tta", "flip")
    status, _, err = run("test", *config)  # the run's config.yaml says `tta: none`
    assert status == 0, err
