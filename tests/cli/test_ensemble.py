import csv
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from lightning_recipes import EnsembleClassifier, ImageFolderDataModule
from lightning_recipes.cli import main

from ..contract.toys import QUIET, fit, toy


@pytest.fixture(scope="module")
def pair(trained, tmp_path_factory):
    """Two checkpoints of the trained run's data, the second from a short run with another seed."""
    directory, _ = trained
    second = tmp_path_factory.mktemp("second") / "run"
    config = ("--config", str(directory / "config.yaml"), "--run_dir", str(second))
    assert main(["fit", *config, "--seed_everything", "5", "--trainer.max_epochs", "2"]) == 0
    yield directory / "best.ckpt", second / "best.ckpt"
    shutil.rmtree(second.parent)


def read(path="ensemble.csv"):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def body(out):
    """The names in the first column of the table, a row a score."""
    return [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│") and "%" in line]


def test_two_checkpoints(run, pair, trained, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, err = run("ensemble", *pair, "--device", "cpu")
    assert status == 0, err
    _, png = trained
    rows = read()
    first, second = (f"{path.parent.parent.name}/run/best" for path in pair)  # two runs of one name
    assert [row["name"] for row in rows] == [first, second, "ensemble", "tempered"]
    assert [name for name in body(out) if name] == ["1", "2", "ensemble", "tempered"]
    for number, name in enumerate((first, second), 1):
        assert f"member {number}: {name}" in out
    data = ImageFolderDataModule(png)
    ensemble = EnsembleClassifier.load_from_checkpoint("ensemble.ckpt", weights_only=True)
    assert ensemble.temperature == pytest.approx(float(rows[3]["temperature"]))
    (result,) = Trainer(**QUIET).test(ensemble, datamodule=data, verbose=False)
    assert result["test/loss"] == pytest.approx(float(rows[3]["nll"]), abs=1e-5)
    assert result["test/acc"] == pytest.approx(float(rows[3]["accuracy"]), abs=1e-6)
    assert result["test/ece"] == pytest.approx(float(rows[3]["ece"]), abs=1e-5)
    assert f"on the test split, {len(data.splits['test'])} images" in out
    for word in ("ensemble: ensemble.ckpt", "report: ensemble.csv", "temperature: "):
        assert word in out
    assert ensemble.class_names == data.class_names
    assert sorted(path.name for path in Path().iterdir()) == ["ensemble.ckpt", "ensemble.csv"]


def test_a_member_s_row_is_its_own_test(run, pair):
    run("ensemble", *pair)
    for row, path in zip(read(), pair, strict=False):
        status, out, err = run("test", "--config", path.parent / "config.yaml", "--ckpt_path", path)
        assert status == 0, err
        (line,) = [line for line in out.splitlines() if line.startswith("│")]
        assert float(line.split("│")[2]) == pytest.approx(float(row["nll"]), abs=1e-4)


@pytest.mark.parametrize("command", ["validate", "test"])
def test_an_ensemble_is_measured_like_a_checkpoint(run, pair, command):
    run("ensemble", *pair)
    config = pair[0].parent / "config.yaml"
    status, out, err = run(command, "--config", config, "--ckpt_path", "ensemble.ckpt")
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("│")]
    assert line.split("│")[1].strip() == ("val" if command == "validate" else "test")
    if command == "test":
        assert float(line.split("│")[2]) == pytest.approx(float(read()[3]["nll"]), abs=1e-4)


def test_an_ensemble_predicts(run, pair, trained):
    _, png = trained
    run("ensemble", *pair)
    image = next((png / "two").iterdir())
    assert run("predict", "--ckpt_path", "ensemble.ckpt", image, "--top_k", "3")[0] == 0
    rows = read("predictions.csv")
    assert rows[0]["class"] == "two"
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1, abs=1e-5)


def test_an_ensemble_is_a_member_of_the_next(run, pair):
    assert run("ensemble", pair[1], pair[1])[0] == 0
    status, _, err = run(
        *("ensemble", "ensemble.ckpt", pair[0], "--config", pair[0].parent / "config.yaml"),
        *("--output", "all.ckpt", "--report", "all.csv"),
    )
    assert status == 0, err
    assert len(EnsembleClassifier.load_from_checkpoint("all.ckpt", weights_only=True).members) == 3


def test_weak_members_are_left_out_on_request(run, pair, tmp_path):
    weak = torch.load(pair[0], weights_only=True)
    weak["state_dict"]["head.weight"].mul_(-1)  # surely wrong
    torch.save(weak, tmp_path / "weak.ckpt")
    config = ("--config", pair[0].parent / "config.yaml")
    status, out, err = run("ensemble", tmp_path / "weak.ckpt", pair[0], *config, "--select", "true")
    assert status == 0, err
    assert "left out by the NLL on the val split: " in out
    assert [row["name"] for row in read()] == ["run/best", "ensemble", "tempered"]
    assert len(EnsembleClassifier.load_from_checkpoint("ensemble.ckpt", weights_only=True).members) == 1


def test_the_data_may_be_given_and_laid_over(run, pair, trained):
    _, png = trained
    given = ("--data", "ImageFolderDataModule", "--data.root", png)
    laid_over = ("--data.test_fraction=0", "--batch_size", "7")
    with pytest.warns(UserWarning, match=r"another split \(`data\.test_fraction`: 0\.15 against 0"):
        status, out, err = run("ensemble", pair[0], *given, *laid_over)
    assert status == 0, err
    assert "on the val split, where the temperature was fitted, for want of a test split" in out
    with pytest.warns(UserWarning, match=r"`data\.split_seed`: 0 against 3"):
        status, out, err = run("ensemble", pair[0], "--data.split_seed", "3", "--overwrite", "true")
    assert status == 0, err
    assert "on the test split" in out


def test_the_same_seed_gives_the_same_report(run, pair):
    run("ensemble", *pair)
    first = Path("ensemble.csv").read_bytes()
    run("ensemble", *pair, "--overwrite", "true")
    assert Path("ensemble.csv").read_bytes() == first
    run("ensemble", *pair, "--overwrite", "true", "--seed_everything", "1")
    assert Path("ensemble.csv").read_bytes() != first


# Bad input


def refused(run, says, *arguments):
    status, _, err = run(*arguments)
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert says in line
    assert not Path("ensemble.ckpt").exists()
    assert not Path("ensemble.csv").exists()


def test_wrong_members(run, pair, tmp_path):
    best = torch.load(pair[0], weights_only=True)
    for name, change in {
        "empty": {"state_dict": {}},
        "renamed": {"lightning_recipes": {**best["lightning_recipes"], "class_names": ["a", "b", "c"]}},
        "fewer": {"lightning_recipes": {**best["lightning_recipes"], "class_names": ["a", "b"]}},
    }.items():
        torch.save({**best, **change}, tmp_path / f"{name}.ckpt")
    refused(run, "empty is a checkpoint without weights", "ensemble", pair[0], tmp_path / "empty.ckpt")
    refused(run, "name their classes differently", "ensemble", pair[0], tmp_path / "renamed.ckpt")
    refused(run, "has 3 classes", "ensemble", pair[0], tmp_path / "fewer.ckpt")
    refused(run, "none.ckpt, which is not there", "ensemble", "none.ckpt")
    fit(toy(), default_root_dir=tmp_path).save_checkpoint("toy.ckpt")
    refused(run, "the checkpoint does not name it", "ensemble", "toy.ckpt")
    refused(run, "Missing: `checkpoints`. See --help.", "ensemble")


def test_wrong_data(run, pair, tmp_path):
    alone = shutil.copy(pair[0], tmp_path / "alone.ckpt")
    refused(run, "no config.yaml beside", "ensemble", alone)
    refused(run, "there is no class `Nothing`", "ensemble", alone, "--data", "Nothing")
    refused(run, "3 classes, the data have 10", "ensemble", alone, "--data", "DigitsDataModule")
    refused(run, "`--config` none.yaml cannot be read", "ensemble", alone, "--config", "none.yaml")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": {"class_path": "ImageClassifier"}}))
    refused(run, "model.yaml does not say", "ensemble", alone, "--config", tmp_path / "model.yaml")
    refused(run, "`image_size: 32`, the data have 64", "ensemble", pair[0], "--data.image_size", "64")
    refused(run, "no argument `--data.rot`", "ensemble", pair[0], "--data.rot", "x")
    refused(run, "`--batch_size` must be at least 1, got 0", "ensemble", pair[0], "--batch_size", "0")


def test_wrong_arguments(run, pair):
    refused(
        run, "no argument `--overwite`. Did you mean `--overwrite`", "ensemble", pair[0], "--overwite", "1"
    )
    refused(run, "`--device cude` is not to be had", "ensemble", pair[0], "--device", "cude")
    Path("mine.csv").write_text("mine")
    refused(run, "mine.csv exists. Give another", "ensemble", pair[0], "--report", "mine.csv")
    assert Path("mine.csv").read_text() == "mine"


def test_an_ensemble_is_not_trained(run, pair):
    run("ensemble", *pair)
    config = ("--config", pair[0].parent / "config.yaml", "--run_dir", "again")
    status, _, err = run("fit", *config, "--ckpt_path", "ensemble.ckpt")
    assert status == 2
    assert "ensemble.ckpt is an ensemble, whose members are trained" in err
    assert not Path("again").exists()


def test_help_lists_the_data_s_arguments(capsys):
    with pytest.raises(SystemExit):
        main(["ensemble", "--help"])
    out = capsys.readouterr().out
    for word in ("checkpoints", "--select", "--data CONFIG", "--data.help"):
        assert word in out
