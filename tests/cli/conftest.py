import shutil
from pathlib import Path

import pytest
import torch

from lightning_recipes.cli import main

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = ("--config", str(CONFIGS / "tiny.yaml"))


@pytest.fixture
def run(capsys):
    """Run a command in this process; return its exit status, and what it printed on both channels."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The directory of a finished run on three classes of real PNG files, and the folder of the files."""
    from PIL import Image
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp("trained")
    data = load_digits(n_class=3)
    names = ["zero", "one", "two"]
    for number, (image, target) in enumerate(zip(data.images, data.target, strict=True)):
        path = root / "png" / names[target] / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * (255 / 16)).astype("uint8")).save(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    status = main(
        [
            *("fit", *TINY, "--trainer.max_epochs", "8", "--data", "ImageFolderDataModule"),
            *(
                "--data.root",
                str(root / "png"),
                "--data.limit_per_class",
                "null",
                "--run_dir",
                str(root / "run"),
            ),
        ]
    )
    torch.set_num_threads(threads)
    assert status == 0
    yield root / "run", root / "png"
    shutil.rmtree(root)
