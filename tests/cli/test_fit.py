import csv
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from lightning_recipes import Augmentation, ImageClassifier
from lightning_recipes.utils.errors import UserError

from ..contract.toys import same
from .conftest import CONFIGS, TINY

PLAIN = vars(Augmentation())
WRITTEN = {
    "best.ckpt",
    "last.ckpt",
    "config.yaml",
    "metrics.csv",
    "learning_curves.csv",
    "learning_curves.png",
}


def test_a_run_leaves_all_that_it_promises(run):
    status, out, _ = run("fit", *TINY)
    assert status == 0
    (directory,) = Path("runs").iterdir()
    assert directory.name == "digits-test_resnet-1"
    names = {path.name for path in directory.iterdir()}
    assert names >= WRITTEN
    assert any(name.startswith("events.out.tfevents") for name in names)
    with (directory / "metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    assert float(logged[-1]["test/acc"]) > 0
    table = [line for line in out.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in table] == ["train", "val", "test"]
    for word in ("accuracy", "calibration error", "best epoch: ", f"run: {directory}", "learning_curves.png"):
        assert word in out
    assert f"{float(logged[-1]['test/loss']):.4f}" in table[2]
    assert Image.open(directory / "learning_curves.png").size[0] > 500


def test_a_second_run_writes_nowhere_that_the_first_did(run):
    run("fit", *TINY)
    first = Path("runs/digits-test_resnet-1")
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in first.iterdir()}
    assert run("fit", *TINY)[0] == 0
    assert {path.name for path in Path("runs").iterdir()} == {"digits-test_resnet-1", "digits-test_resnet-2"}
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in first.iterdir()} == before


def test_the_saved_config_repeats_the_run(run):
    run("fit", *TINY, "--model.label_smoothing", "0.1")
    saved = Path("runs/digits-test_resnet-1/config.yaml")
    assert yaml.safe_load(saved.read_text())["model"]["init_args"]["label_smoothing"] == 0.1
    assert run("fit", "--config", saved)[0] == 0
    one, two = (torch.load(f"runs/digits-test_resnet-{i}/last.ckpt", weights_only=True) for i in (1, 2))
    assert all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_last_checkpoint_is_of_the_last_epoch_also_when_it_is_not_the_best(run, mode):
    assert run("fit", *TINY, "--checkpoint.mode", mode)[0] == 0
    assert torch.load("runs/digits-test_resnet-1/last.ckpt", weights_only=True)["epoch"] == 1


def test_resumed_equals_uninterrupted(run):
    run(
        "fit",
        *TINY,
        "--run_dir",
        "whole",
        "--checkpoint.save_top_k",
        "-1",
        "--checkpoint.filename",
        "{epoch}",
    )
    status, _, err = run("fit", *TINY, "--run_dir", "resumed", "--ckpt_path", "whole/epoch=0.ckpt")
    assert status == 0, err
    whole, resumed = (torch.load(f"{name}/last.ckpt", weights_only=True) for name in ("whole", "resumed"))
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert Path("whole/learning_curves.csv").read_bytes() == Path("resumed/learning_curves.csv").read_bytes()


def test_a_run_goes_on_by_its_own_config(run):
    assert run("fit", *TINY, "--run_dir", "first", "--trainer.callbacks+=EMA")[0] == 0
    more = ("--ckpt_path", "first/last.ckpt", "--trainer.max_epochs", "3", "--run_dir", "second")
    status, _, err = run("fit", "--config", "first/config.yaml", *more)
    assert status == 0, err
    saved = yaml.safe_load(Path("second/config.yaml").read_text())
    assert (saved["run_dir"], saved["ckpt_path"]) == (None, None)


def test_ctrl_c_loses_nothing(run, monkeypatch, capsys):
    """In the second epoch's first batch: the run goes on to what it would have been."""
    extra = ("--trainer.callbacks+=ExactResume", "--trainer.callbacks+=EMA")
    assert run("fit", *TINY, *extra, "--run_dir", "whole")[0] == 0

    def interrupt(self, *_):
        if self.trainer.global_step == 4:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(ImageClassifier, "on_train_batch_end", interrupt)
        with pytest.raises(SystemExit):
            run("fit", *TINY, *extra, "--run_dir", "cut")
    signal.signal(signal.SIGINT, handler)  # Lightning ignores it from then on
    assert torch.load("cut/last.ckpt", weights_only=True)["global_step"] == 4
    hint = "go on from `--config cut/config.yaml --ckpt_path cut/last.ckpt`"
    assert hint in capsys.readouterr().err
    resumed = ("--config", "cut/config.yaml", "--ckpt_path", "cut/last.ckpt", "--run_dir", "resumed")
    assert run("fit", *resumed)[0] == 0
    one, two = (torch.load(f"{folder}/last.ckpt", weights_only=True) for folder in ("whole", "resumed"))
    for part in ("state_dict", "weight_averages", "optimizer_states", "epoch", "global_step"):
        assert same(one[part], two[part]), part


def test_an_average_without_its_callback_is_named(run):
    assert run("fit", *TINY, "--run_dir", "first", "--trainer.callbacks+=EMA")[0] == 0
    more = ("--ckpt_path", "first/last.ckpt", "--trainer.max_epochs", "3", "--run_dir", "second")
    with pytest.warns(
        UserWarning, match="made with EMA, which this run lacks. It trains on from the average"
    ):
        assert run("fit", *TINY, *more)[0] == 0


def test_no_schedule_leaves_the_rate_to_callbacks(run):
    cycles = ("--trainer.callbacks+=SnapshotEnsemble", "--trainer.callbacks.cycles", "2")
    status, _, err = run("fit", *TINY, "--model.schedule", "null", *cycles, "--run_dir", "cyclic")
    assert status == 0, err
    assert Path("cyclic/snapshots/ensemble.ckpt").exists()
    status, _, err = run("ensemble", "cyclic/snapshots/member-1.ckpt", "cyclic/snapshots/member-2.ckpt")
    assert status == 0, err


def test_an_overlay_appends_callbacks(run):
    status, _, err = run("fit", *TINY, "--config", CONFIGS / "two_curves.yaml", "--test_after", "false")
    assert status == 0, err
    written = {path.name for path in Path("runs/digits-test_resnet-1").iterdir()}
    assert {"learning_curves.csv", "second.csv"} <= written


def test_all_callbacks_in_one_run_and_on_resume(run):
    """The checkpoint of the first epoch goes on to the end of the whole run, bit for bit."""
    overlay = ("--config", CONFIGS / "all_callbacks.yaml", "--checkpoint.save_top_k", "-1")
    keep = ("--checkpoint.filename", "{epoch}")
    status, _, err = run("fit", *TINY, *overlay, *keep, "--run_dir", "whole")
    assert status == 0, err
    resumed = ("--run_dir", "resumed", "--ckpt_path", "whole/epoch=0.ckpt")
    assert run("fit", *TINY, *overlay, *keep, *resumed)[0] == 0
    one, two = (
        torch.load(Path(folder) / "snapshots" / "ensemble.ckpt", weights_only=True)
        for folder in ("whole", "resumed")
    )
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert all(torch.equal(tensor, two["state_dict"][name]) for name, tensor in one["state_dict"].items())
    one, two = (torch.load(f"{folder}/last.ckpt", weights_only=True) for folder in ("whole", "resumed"))
    for part in ("state_dict", "weight_averages", "best_weights"):
        assert same(one[part], two[part]), part
    status, out, _ = run("test", "--ckpt_path", "whole/snapshots/ensemble.ckpt")
    assert (status, "accuracy" in out) == (0, True)


def test_without_the_test(run):
    _, out, _ = run("fit", *TINY, "--test_after", "false")
    assert [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")] == [
        "train",
        "val",
    ]
    assert "test/acc" not in Path("runs/digits-test_resnet-1/metrics.csv").read_text()


def test_without_checkpoints_or_loggers(run):
    assert run("fit", *TINY, "--trainer.enable_checkpointing", "false", "--trainer.logger", "false")[0] == 0
    names = {path.name for path in Path("runs/digits-test_resnet-1").iterdir()}
    assert names == {"config.yaml", "learning_curves.csv", "learning_curves.png"}


def test_a_rehearsal_leaves_nothing(run):
    assert run("fit", *TINY, "--trainer.fast_dev_run", "true")[0] == 0
    assert not Path("runs").exists()


def test_classes_channels_and_size_come_from_the_data(run, trained):
    stored = torch.load(trained[0] / "best.ckpt", weights_only=True)
    hparams = stored["hyper_parameters"]
    assert (hparams["num_classes"], hparams["in_chans"], hparams["image_size"]) == (3, 1, 32)
    assert stored["lightning_recipes"]["class_names"] == ["one", "two", "zero"]


def test_a_module_of_the_user_s_own(run, tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(
        "from lightning_recipes import ImageClassifier\n"
        "from torch import nn\n"
        "class Deep(ImageClassifier):\n"
        "    def __init__(self, width: int = 8, **options):\n"
        "        self.width = width\n"
        "        super().__init__(**options)\n"
        "    def configure_head(self, head):\n"
        "        return nn.Sequential(nn.Linear(head.in_features, self.width), nn.ReLU(),\n"
        "                             nn.Linear(self.width, head.out_features))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    # another class than the config's drops the config's arguments, so its own are given
    deep = ("--model", "my_parts.Deep", "--model.width", "5", "--model.backbone", "test_resnet")
    status, _, err = run("fit", *TINY, *deep, "--run_dir", "deep")
    assert status == 0, err
    stored = torch.load("deep/best.ckpt", weights_only=True)
    assert stored["state_dict"]["head.0.weight"].shape[0] == 5
    assert stored["lightning_recipes"]["class_path"] == "my_parts.Deep"
    assert run("test", *TINY[:0], "--ckpt_path", "deep/best.ckpt")[0] == 0
    Image.new("L", (8, 8)).save("one.png")
    assert run("predict", "--ckpt_path", "deep/best.ckpt", "one.png")[0] == 0


def test_a_module_and_data_that_know_nothing_of_ours(run, tmp_path, monkeypatch):
    (tmp_path / "strangers.py").write_text(
        "import torch\n"
        "from lightning.pytorch import LightningDataModule, LightningModule\n"
        "class Line(LightningModule):\n"
        "    def __init__(self, width: int = 4):\n"
        "        super().__init__()\n"
        "        self.line = torch.nn.Linear(3, width)\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        return self.line(batch).pow(2).mean()\n"
        "    def validation_step(self, batch, batch_idx):\n"
        "        self.log('val/loss', self.line(batch).pow(2).mean())\n"
        "    def configure_optimizers(self):\n"
        "        return torch.optim.SGD(self.parameters(), 0.1)\n"
        "class Noise(LightningDataModule):\n"
        "    def __init__(self, size: int = 20):\n"
        "        super().__init__()\n"
        "        self.size = size\n"
        "    def train_dataloader(self):\n"
        "        return torch.utils.data.DataLoader(torch.randn(self.size, 3), 4)\n"
        "    val_dataloader = train_dataloader\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    strangers = ("--model", "strangers.Line", "--model.width", "5", "--data", "strangers.Noise")
    short = ("--trainer.max_epochs", "2", "--trainer.enable_model_summary", "false")
    status, out, err = run("fit", *strangers, *short)
    assert status == 0, err
    assert Path("runs/noise-line-1/best.ckpt").is_file()
    (row,) = [line for line in out.splitlines() if line.startswith("│")]
    assert row.split("│")[1].strip() == "val"


# Bad input: one error, and nothing left behind


def test_a_run_directory_that_holds_files(run):
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    status, _, err = run("fit", *TINY, "--run_dir", "full")
    assert status == 2
    assert err.strip().endswith(
        "`run_dir` full holds files already. Give another, or leave it out for a new one."
    )
    assert Path("full/mine.txt").read_text() == "mine"


def test_a_run_directory_that_cannot_be_made(run):
    Path("file").write_text("no folder")
    status, _, err = run("fit", *TINY, "--run_dir", "file/run")
    assert status == 2
    assert "Cannot write to file/run: Not a directory. Give `run_dir` in a folder that you may write." in err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no folders")
def test_a_run_directory_where_nothing_can_be_made(run):
    status, _, err = run("fit", *TINY, "--run_dir", "/proc/run")
    assert status == 2
    assert "Cannot write to /proc/run: No such file or directory. Give `run_dir` in a folder" in err


def test_a_disk_without_room_is_seen_before_training(run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    status, _, err = run("fit", *TINY)
    assert status == 2
    assert "Free some space, or give `run_dir` on another disk." in err
    assert not any(Path("runs").iterdir())


def test_bad_data_leave_no_directory(run, folder):
    bad = folder / "one" / "010.png"
    bad.write_bytes(bad.read_bytes()[:50])
    arguments = ("--data", "ImageFolderDataModule", "--data.root", folder)
    for extra in ((), ("--data.in_memory", "false", "--data.num_workers", "1")):
        status, _, err = run("fit", *TINY, *arguments, *extra)
        assert status == 2
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert line.startswith(f"error: Cannot read the image {bad}")
        assert "Traceback" not in err
        assert list(Path("runs").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "Digits"], "`--data`: there is no class `Digits`. Did you mean "),
        (["--model.backbon", "x"], "There is no argument `--model.backbon` here. Did you mean `backbone`?"),
        (["--model.backbone", "resnet81"], "timm has no backbone 'resnet81'. Did you mean `resnet18`"),
        (
            ["--trainer.callbacks+=LearningCurve"],
            "there is no class `LearningCurve`. Did you mean `LearningCurves`",
        ),
        (["--traner.max_epochs", "3"], "There is no argument `--traner.max_epochs`. Did you mean `--trainer"),
        (["--trainer.max_epochs", "many"], "`--trainer.max_epochs` must be int, got many."),
        (
            ["--model.optimizer.lrr", "1"],
            "There is no argument `--model.optimizer.lrr` here. Did you mean `lr`?",
        ),
        (["--model.schedule.shape", "cosin"], "got 'cosin'. Did you mean `cosine`?"),
        (["--data.augment", "lite"], "got 'lite'. Did you mean `light`?"),
        (
            ["--data.augment.rotaton", "5"],
            "no argument `--data.augment.rotaton` here. Did you mean `rotation`?",
        ),
        (["--data.augment.rotation", "far"], "`--data.augment.rotation` must be float, got far."),
        (["--data.augment.rotation", "200"], "`augment.rotation` must lie in [0, 180], got 200.0."),
        (["--data.augment.elastic", "[50,9]"], "`augment.elastic` must have a σ below about a quarter"),
        (["--data.mix.mixupp", "1"], "no argument `--data.mix.mixupp` here. Did you mean `mixup`"),
        (
            ["--data.mix", "yes"],
            "`--data.mix` is given by its parts, `--data.mix.mixup`, `--data.mix.cutmix`",
        ),
        (["--data.mix.off_epoch", "3"], "`mix` needs `mixup` or `cutmix` above 0, got neither."),
        (
            ["--data.mix.mixup", "1", "--data.batch_size", "1"],
            "Mixing needs batches of at least 2 samples, got 1",
        ),
        (["--data", "ImageFolderDataModule"], "Missing: `--data.root`."),
        (["--model", "nowhere.Model"], "cannot import `nowhere.Model`: No module named 'nowhere'."),
        (["--data.fold", "7", "--data.folds", "5"], "`fold` must lie in 0..4 for `folds: 5`, got 7."),
        (["--data.folds", "190", "--data.fold", "0"], "needs at least 190 images of each class"),
        (["--data", "TorchvisionDataModule", "--data.name", "CIFAR10"], "CIFAR10 is not in data: "),
        (["--ckpt_path", "nothing.ckpt"], "`ckpt_path` must be a checkpoint, got nothing.ckpt"),
        (["--model.weights", "nothing.pth"], "`weights` must be a file, got nothing.pth"),
        (["--config", "nothing.yaml"], "nothing.yaml"),
        (["--trainer.accelerator", "cuda"], "CUDAAccelerator"),
        (["--model.optimizer.lr", "-1"], "The optimizer cannot be built: Invalid learning rate: -1.0"),
    ],
)
def test_one_clear_error(run, arguments, says):
    status, _, err = run("fit", *TINY, *arguments)
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert says in line
    assert "Traceback" not in err
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_parts_of_augmentation_and_mixing_come_back_from_the_run_s_config(run):
    parts = (
        "--data.augment.cutout",
        "0.5",
        "--data.augment.short_side",
        "[1.1,1.5]",
        "--data.mix.mixup",
        "0.2",
    )
    status, _, _ = run("fit", *TINY, *parts, "--data.mix.off_epoch", "1", "--run_dir", "first")
    assert status == 0
    given = yaml.safe_load(Path("first/config.yaml").read_text())["data"]["init_args"]
    assert given["mix"] == {"mixup": 0.2, "cutmix": 0.0, "off_epoch": 1}
    changed = {name: value for name, value in given["augment"].items() if value != PLAIN[name]}
    assert changed == {"cutout": 0.5, "short_side": [1.1, 1.5]}
    status, _, _ = run("fit", "--config", "first/config.yaml", "--run_dir", "second")
    assert status == 0
    again = yaml.safe_load(Path("second/config.yaml").read_text())["data"]["init_args"]
    assert again == given
    curves = [Path(name, "learning_curves.csv").read_text() for name in ("first", "second")]
    assert curves[0] == curves[1]


def test_an_error_that_is_ours_to_mend_keeps_its_traceback(run, monkeypatch):
    monkeypatch.setattr("lightning_recipes.cli.train.RecipesCLI.fit", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("fit", *TINY)
    with pytest.raises(UserError):
        raise UserError("a `UserError` is a ValueError") from None
