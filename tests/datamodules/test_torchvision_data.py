"""torchvision's own readers, on files that the tests write in their formats."""

import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_recipes.datamodules import TorchvisionDataModule
from lightning_recipes.utils.errors import UserError


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def fashion(tmp_path):
    rng = np.random.RandomState(0)
    raw = tmp_path / "FashionMNIST" / "raw"
    for prefix, count in (("train", 100), ("t10k", 20)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", rng.randint(0, 256, (count, 28, 28)).astype(np.uint8))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path


def test_arrays_with_an_official_test_split(fashion):
    data = TorchvisionDataModule("FashionMNIST", root=fashion, val_fraction=0.2)
    assert (data.num_classes, data.channels, data.image_size) == (10, 1, 32)  # known before anything is read
    data.setup("fit")
    assert {name: len(samples) for name, samples in data.splits.items()} == {
        "train": 80,
        "val": 20,
        "test": 20,
    }
    assert data.class_names[0] == "T-shirt/top"
    assert data.splits["test"].targets.tolist() == [i % 10 for i in range(20)]
    native = TorchvisionDataModule("FashionMNIST", root=fashion, image_size=28)
    native.setup("fit")
    stored = np.fromfile(fashion / "FashionMNIST/raw/t10k-images-idx3-ubyte", np.uint8, offset=16)
    assert torch.equal(native.splits["test"].load(28, 1.0).flatten(), torch.from_numpy(stored))


def test_colour_arrays(tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(
        datasets.CIFAR10, "_load_meta", lambda self: setattr(self, "classes", list("abcdefghij"))
    )
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (100, 3072)).astype(np.uint8)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(100)]}))
    data = TorchvisionDataModule("CIFAR10", root=tmp_path)
    data.setup("fit")
    assert torch.equal(data.splits["test"].read(0), torch.from_numpy(pixels[0].reshape(3, 32, 32)))
    assert data.class_names == list("abcdefghij")


def test_files_without_splits(tmp_path):
    names = ["AnnualCrop", "Forest", *(f"Class{i}" for i in range(8))]
    for name in names:
        (tmp_path / "eurosat" / "2750" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (64, 64), (number, 20, 30)).save(
                tmp_path / "eurosat/2750" / name / f"{number}.jpg"
            )
    data = TorchvisionDataModule("EuroSAT", root=tmp_path, image_size=32)
    data.setup("fit")
    assert sum(len(samples) for samples in data.splits.values()) == 100
    assert data.class_names == sorted(names)
    images, _ = next(iter(data.val_dataloader()))
    assert images.shape[1:] == (3, 32, 32)


@pytest.mark.parametrize(
    "name",
    [
        "MNIST",
        "FashionMNIST",
        "CIFAR10",
        "CIFAR100",
        "SVHN",
        "Flowers102",
        "OxfordIIITPet",
        "Food101",
        "EuroSAT",
    ],
)
def test_absent_data_say_what_to_do(tmp_path, name):
    data = TorchvisionDataModule(name, root=tmp_path / "none")
    with pytest.raises(UserError, match=f"{name} is not in .*`download: true`"):
        data.setup("fit")


def test_an_unknown_name():
    with pytest.raises(UserError, match=r"got 'CIFAR11'\. Did you mean `CIFAR10`"):
        TorchvisionDataModule("CIFAR11")


@pytest.mark.parametrize(("name", "mirrored"), [("MNIST", False), ("SVHN", False), ("CIFAR10", True)])
def test_digits_are_not_mirrored_by_default(name, mirrored):
    assert TorchvisionDataModule(name).horizontal_flip is mirrored
    assert TorchvisionDataModule(name, horizontal_flip=not mirrored).horizontal_flip is not mirrored
