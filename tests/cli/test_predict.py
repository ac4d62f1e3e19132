import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from ..contract.toys import QUIET, fit, toy
from .conftest import TINY


def read(path="predictions.csv"):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def test_a_folder(run, trained):
    directory, png = trained
    status, out, _ = run("predict", "--ckpt_path", directory / "best.ckpt", png)
    assert status == 0
    rows = read()
    assert len(rows) == len(list(png.rglob("*.png")))
    assert list(rows[0]) == ["file", "class", "probability"]
    right = sum(Path(row["file"]).parent.name == row["class"] for row in rows)
    assert right / len(rows) > 0.95
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)
    assert "predictions.csv" in out


def test_single_images_and_the_runners_up(run, trained):
    directory, png = trained
    images = [next((png / name).iterdir()) for name in ("zero", "two")]
    assert (
        run(
            "predict", "--ckpt_path", directory / "best.ckpt", *images, "--top_k", "3", "--output", "a/b.csv"
        )[0]
        == 0
    )
    rows = read("a/b.csv")
    assert [row["file"] for row in rows] == [str(image) for image in images for _ in range(3)]
    assert [rows[0]["class"], rows[3]["class"]] == ["zero", "two"]
    for part in (rows[:3], rows[3:]):
        values = [float(row["probability"]) for row in part]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-5)
    assert [path.name for path in Path("a").iterdir()] == ["b.csv"]  # nothing half-written beside it


def test_a_colour_image_of_another_size(run, trained):
    directory, png = trained
    image = Image.open(next((png / "zero").iterdir())).convert("RGB").resize((100, 100))
    image.save("big.jpg")
    assert run("predict", "--ckpt_path", directory / "best.ckpt", "big.jpg")[0] == 0
    assert read()[0]["class"] == "zero"


def test_prediction_is_what_was_validated(run, trained):
    """The CSV, the test loop and the module agree on every image."""
    from lightning_recipes import ImageClassifier, ImageFolderDataModule

    directory, png = trained
    run("predict", "--ckpt_path", directory / "best.ckpt", png)
    predicted = {row["file"]: row["class"] for row in read()}
    data = ImageFolderDataModule(png)
    model = ImageClassifier.load_from_checkpoint(directory / "best.ckpt", weights_only=True)
    (result,) = Trainer(**QUIET).test(model, datamodule=data, verbose=False)
    names = [data.class_names[target] for target in data.splits["test"].targets]
    right = [predicted[str(p)] == name for p, name in zip(data.splits["test"].items, names, strict=True)]
    assert sum(right) / len(right) == pytest.approx(result["test/acc"])


@pytest.mark.parametrize("normalize", ["mean_image", "whiten"])
def test_a_fitted_normalisation_is_applied_from_the_checkpoint_alone(run, folder, normalize):
    """Of every validation image, the CSV has the probabilities that the validation loader leads to."""
    from lightning_recipes import ImageClassifier, ImageFolderDataModule

    settings = {"image_size": 8, "normalize": normalize, "augment": "none", "val_fraction": 0.3}
    arguments = [text for key, value in settings.items() for text in (f"--data.{key}", value)]
    data = ("--data", "ImageFolderDataModule", "--data.root", folder, "--data.batch_size", "5")
    assert run("fit", *TINY, *data, *arguments, "--run_dir", "out")[0] == 0
    images = ImageFolderDataModule(folder, **settings, batch_size=5)
    model = ImageClassifier.load_from_checkpoint("out/best.ckpt", weights_only=True)
    validated = torch.cat(Trainer(**QUIET).predict(model, loader(images)))
    assert run("predict", "--ckpt_path", "out/best.ckpt", folder, "--top_k", "3")[0] == 0
    found = {(row["file"], row["class"]): float(row["probability"]) for row in read()}
    for path, expected in zip(images.splits["val"].items, validated.tolist(), strict=True):
        ours = [found[str(path), name] for name in images.class_names]
        assert ours == pytest.approx(expected, abs=1e-5)  # six digits, and batches of another size
    spread = validated.std(0).max()
    assert spread > 1e-3  # the images are told apart


def loader(data):
    data.setup("fit")
    return data.val_dataloader()


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_measures_itself(run, trained, command):
    directory, png = trained
    data = ("--data", "ImageFolderDataModule", "--data.root", png)
    status, out, err = run(command, *data, "--ckpt_path", directory / "best.ckpt")
    assert status == 0, err
    (row,) = [line for line in out.splitlines() if line.startswith("│")]
    split = "val" if command == "validate" else "test"
    with (directory / "metrics.csv").open() as file:
        logged = [r for r in csv.DictReader(file) if r[f"{split}/loss"]]
    best = min(float(r[f"{split}/loss"]) for r in logged)
    assert row.split("│")[1].strip() == split
    assert float(row.split("│")[2]) == pytest.approx(best, abs=1e-4)
    assert not Path("runs").exists()
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_run_s_own_config_serves_to_measure_it(run, trained, command):
    directory, _ = trained
    config = ("--config", directory / "config.yaml")
    status, out, err = run(command, *config, "--ckpt_path", directory / "best.ckpt")
    assert status == 0, err
    assert len([line for line in out.splitlines() if line.startswith("│")]) == 1
    refused(run, "Missing: `--ckpt_path`", command, *config)


# Bad input


def refused(run, says, *arguments):
    status, _, err = run(*arguments)
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert says in line
    assert not Path("predictions.csv").exists()


def test_wrong_checkpoints(run, trained, tmp_path):
    _, png = trained
    refused(
        run, "`ckpt_path` must be a checkpoint, got none.ckpt", "predict", "--ckpt_path", "none.ckpt", png
    )
    Path("text.ckpt").write_text("no checkpoint")
    refused(run, "text.ckpt cannot be read as a checkpoint", "predict", "--ckpt_path", "text.ckpt", png)
    torch.save({"weight": torch.zeros(1)}, "bare.ckpt")
    refused(run, "bare.ckpt is no checkpoint of Lightning's", "predict", "--ckpt_path", "bare.ckpt", png)
    fit(toy(), default_root_dir=tmp_path).save_checkpoint("toy.ckpt")
    refused(run, "toy.ckpt is a checkpoint of another module", "predict", "--ckpt_path", "toy.ckpt", png)


def test_wrong_images(run, trained):
    best = ("predict", "--ckpt_path", trained[0] / "best.ckpt")
    refused(run, "There is no image or folder nowhere", *best, "nowhere")
    Path("empty").mkdir()
    refused(run, "No images in empty", *best, "empty")
    Path("bad.png").write_bytes(b"\x89PNG")
    refused(run, "Cannot read the image bad.png", *best, "bad.png")
    refused(run, "None of the 1 images can be read", *best, "bad.png", "--on_bad_image", "skip")


def test_bad_images_are_skipped_on_request(run, trained):
    directory, png = trained
    Path("bad.png").write_bytes(b"\x89PNG")
    image = next((png / "one").iterdir())
    status, out, err = run(
        "predict", "--ckpt_path", directory / "best.ckpt", "bad.png", image, "--on_bad_image", "skip"
    )
    assert status == 0
    assert [row["file"] for row in read()] == [str(image)]
    assert "Skipped 1 of 2 images" in err
    assert "bad.png" in err
    assert out.startswith("1 images")


def test_wrong_arguments(run, trained):
    directory, png = trained
    best = ("predict", "--ckpt_path", directory / "best.ckpt", png)
    refused(run, "`--top_k` must lie in 1..3, got 4", *best, "--top_k", "4")
    refused(run, "There is no argument `--topk`. Did you mean `--top_k`", *best, "--topk", "4")
    refused(run, "`--device cude` is not to be had", *best, "--device", "cude")
    Path("mine.csv").write_text("mine")
    refused(
        run, "mine.csv exists. Give another `--output`, or `--overwrite true`", *best, "--output", "mine.csv"
    )
    assert Path("mine.csv").read_text() == "mine"
    assert run(*best, "--output", "mine.csv", "--overwrite", "true")[0] == 0
    refused(run, "Missing: `images`, `ckpt_path`. See --help.", "predict")
    refused(run, "no command 'predcit'. Did you mean `predict`", "predcit")


def test_a_checkpoint_of_other_settings(run, trained):
    directory, png = trained
    data = ("--data", "ImageFolderDataModule", "--data.root", png, "--ckpt_path", directory / "best.ckpt")
    refused(run, "is of a module with `backbone: test_resnet`", "test", *data, "--model.backbone", "resnet18")
    refused(run, "tensors do not fit", "test", "--ckpt_path", directory / "best.ckpt")  # ten digits
