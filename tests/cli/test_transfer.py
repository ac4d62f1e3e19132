"""Transfer on the command line: `FineTuning`, and `CachedFeatures` in place of images."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from lightning_recipes.cli import main

from ..contract.toys import same
from .conftest import CONFIGS, TINY

PROBE = ("--trainer.callbacks+=FineTuning", "--trainer.callbacks.policy", "linear_probe")
CACHED = ("--data", "CachedFeatures", "--data.data", "DigitsDataModule", "--data.data.limit_per_class", "6")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The arguments of the tiny configuration without its data, for which others are given."""
    given = yaml.safe_load((CONFIGS / "tiny.yaml").read_text())
    given.pop("data")
    path = tmp_path_factory.mktemp("bare") / "bare.yaml"
    path.write_text(yaml.safe_dump(given))
    return "--config", str(path)


@pytest.fixture(scope="module")
def probed(bare, tmp_path_factory):
    """The directory of a finished probe on cached features."""
    directory = tmp_path_factory.mktemp("probed") / "probe"
    more = ("--data.data.batch_size", "20", "--run_dir", str(directory))
    assert main(["fit", *bare, *CACHED, *PROBE, *more]) == 0
    return directory


def test_a_probe_on_cached_features_measures_all_splits(run, bare, caplog):
    status, out, err = run("fit", *bare, *CACHED, *PROBE)
    assert status == 0, err
    table = [line for line in out.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in table] == ["train", "val", "test"]
    assert "the backbone ran once over 60 train images; no augmentation" in caplog.text
    assert (
        "training the head alone, 970 parameters" in caplog.text
    )  # 96 features, 10 classes: the data say so


def test_a_probe_on_cached_features_is_that_on_images(run, probed):
    status, _, err = run("fit", *TINY, "--data.augment", "none", *PROBE, "--run_dir", "images")
    assert status == 0, err
    one, two = (
        torch.load(path / "last.ckpt", weights_only=True)["state_dict"] for path in (probed, Path("images"))
    )
    for name in ("head.weight", "head.bias"):
        # the backbone saw the images in other batches, whose sums have another order
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-6)


def test_its_checkpoint_serves_every_command(run, probed, folder):
    best = ("--ckpt_path", probed / "best.ckpt")
    for command in ("validate", "test"):
        status, out, err = run(command, "--config", probed / "config.yaml", *best)
        assert status == 0, err
        cached = [line for line in out.splitlines() if line.startswith("│")]
        status, out, err = run(command, *best, "--data.limit_per_class", "6")
        assert status == 0, err
        assert [line for line in out.splitlines() if line.startswith("│")] == cached
    status, _, err = run("predict", *best, folder)
    assert status == 0, err
    with open("predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert {row["class"] for row in rows} <= {str(digit) for digit in range(10)}


def test_its_checkpoints_are_pooled(run, probed):
    status, out, err = run(
        "ensemble", probed / "best.ckpt", probed / "last.ckpt", "--output", "ensemble.ckpt"
    )
    assert status == 0, err
    assert Path("ensemble.ckpt").is_file()
    assert "test split" in out


def test_a_probe_goes_on_by_its_own_config(run, probed):
    more = (
        "--config",
        probed / "config.yaml",
        "--ckpt_path",
        probed / "last.ckpt",
        "--trainer.max_epochs",
        "3",
    )
    status, _, err = run("fit", *more, "--run_dir", "more")
    assert status == 0, err
    one, two = (torch.load(path / "last.ckpt", weights_only=True) for path in (probed, Path("more")))
    assert (one["epoch"], two["epoch"]) == (1, 2)
    backbones = [{n: v for n, v in c["state_dict"].items() if n.startswith("backbone")} for c in (one, two)]
    assert same(*backbones)


def test_data_without_a_test_split(run, bare):
    arguments = (*bare, *CACHED, "--data.data.test_fraction", "0", *PROBE)
    status, out, err = run("fit", *arguments)
    assert status == 0, err
    assert "│ test" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "CachedFeatures"], "Missing: `--data.data`"),
        (
            ["--data", "CachedFeatures", "--data.data", "Digits"],
            "no class `Digits`. Did you mean `DigitsDataModule`?",
        ),
        (
            [*CACHED, "--trainer.callbacks+=FineTuning"],
            "`probe_then_finetune` trains the backbone, whose features CachedFeatures has computed once",
        ),
    ],
)
def test_says_what_is_wrong_with_cached_features(run, bare, arguments, says):
    status, _, err = run("fit", *bare, *arguments)
    assert status == 2
    assert says in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["policy", "finetun"],
            "`--trainer.callbacks.policy` must be one of scratch, linear_probe, finetune",
        ),
        (["policy", "finetun"], "got 'finetun'. Did you mean `finetune`?"),
        (["backbone_scale", "some"], "`--trainer.callbacks.backbone_scale` must be float, got some"),
        (
            ["polic", "finetune"],
            "There is no argument `--trainer.callbacks.polic` here. Did you mean `policy`",
        ),
        (["backbone_scale", "0"], "`backbone_scale` must be above 0, got 0.0"),
        (["freeze_until", "9"], "`freeze_until` must lie in 0..5, the stages of the backbone (conv1, layer1"),
        (["freeze_until", "layer9"], "must name a part of the backbone, got 'layer9'. Did you mean"),
    ],
)
def test_says_what_is_wrong_with_a_policy(run, arguments, says):
    name, value = arguments
    status, _, err = run(
        "fit", *TINY, "--trainer.callbacks+=FineTuning", f"--trainer.callbacks.{name}", value
    )
    assert status == 2
    assert says in err.splitlines()[-1]


@pytest.mark.parametrize("until", ["3", "layer3"])
def test_stages_are_frozen_by_number_and_by_name(run, caplog, until):
    options = ("--trainer.callbacks.policy", "finetune", "--trainer.callbacks.freeze_until", until)
    status, _, err = run("fit", *TINY, "--trainer.callbacks+=FineTuning", *options)
    assert status == 0, err
    assert "training the head and layer3, layer4 of `backbone`" in caplog.text
