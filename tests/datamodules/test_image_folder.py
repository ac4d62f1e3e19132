import csv
import shutil

import pytest
import torch
from PIL import Image

from lightning_recipes.datamodules import ImageFolderDataModule
from lightning_recipes.utils.errors import UserError

SMALL = {"val_fraction": 0.3, "test_fraction": 0.2}


def ready(root, **options):
    data = ImageFolderDataModule(root, **{**SMALL, **options})
    data.setup("fit")
    return data


def sizes(data):
    return {name: len(samples) for name, samples in data.splits.items()}


def write_csv(path, rows, columns=("path", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_class_folders(folder):
    data = ready(folder)
    assert data.class_names == ["one", "two", "zero"]
    assert (data.channels, data.image_size) == (1, 32)
    assert sizes(data) == {"train": 17, "val": 7, "test": 6}
    for samples in data.splits.values():
        for path, target in zip(samples.items, samples.targets, strict=True):
            assert path.parent.name == data.class_names[target]
    images, targets = next(iter(data.val_dataloader()))
    assert images.shape == (7, 1, 32, 32)
    assert targets.dtype == torch.int64


def test_split_folders_are_taken_as_they_are(folder, tmp_path):
    for split, keep in (("train", slice(0, 6)), ("valid", slice(6, 8)), ("test", slice(8, 10))):
        for classes in folder.iterdir():
            target = tmp_path / "split" / split / classes.name
            target.mkdir(parents=True)
            for path in sorted(classes.iterdir())[keep]:
                shutil.copy(path, target)
    assert sizes(ready(tmp_path / "split")) == {"train": 18, "val": 6, "test": 6}
    shutil.rmtree(tmp_path / "split" / "test")
    data = ready(tmp_path / "split", test_fraction=0.3)
    assert sizes(data) == {"train": 13, "val": 6, "test": 5}  # the missing one is split off


def test_a_csv_of_paths_and_labels(folder):
    rows = [(path.relative_to(folder), path.parent.name) for path in sorted(folder.rglob("*.png"))]
    write_csv(folder / "labels.csv", rows)
    by_csv, by_folder = ready(folder, labels="labels.csv"), ready(folder)
    assert by_csv.class_names == by_folder.class_names
    assert sizes(by_csv) == sizes(by_folder)


def test_a_csv_that_gives_the_splits(folder):
    paths = sorted(folder.rglob("*.png"))
    split = ["train", "train", "val", "test", "train"]
    rows = [(p.relative_to(folder), p.parent.name, split[i % 5]) for i, p in enumerate(paths)]
    write_csv(folder / "labels.csv", rows, ("path", "label", "split"))
    assert sizes(ready(folder, labels=folder / "labels.csv")) == {"train": 18, "val": 6, "test": 6}


def test_several_labels_in_one_field(folder):
    paths = sorted(folder.rglob("*.png"))
    rows = [
        (p.relative_to(folder), f"{p.parent.name}|{'even' if i % 2 else 'odd'}") for i, p in enumerate(paths)
    ]
    rows[0] = (rows[0][0], "")  # none of them holds
    write_csv(folder / "labels.csv", rows)
    data = ready(folder, labels="labels.csv")
    assert data.class_names == ["even", "odd", "one", "two", "zero"]
    targets = torch.cat([samples.targets for samples in data.splits.values()])
    assert targets.dtype == torch.float32
    assert targets.shape == (30, 5)
    assert sorted(targets.sum(1).tolist()) == [0.0] + [2.0] * 29


def test_a_colour_image_makes_the_set_rgb(folder):
    Image.new("RGB", (8, 8), (200, 10, 10)).save(folder / "zero" / "red.png")
    data = ready(folder)
    assert data.channels == 3
    assert next(iter(data.val_dataloader()))[0].shape[1] == 3
    assert ready(folder, channels=1).channels == 1


@pytest.mark.parametrize(("side", "size"), [(8, 32), (60, 64), (500, 224)])
def test_the_default_image_size_suits_the_files(tmp_path, side, size):
    for name in ("a", "b"):
        (tmp_path / "sized" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("L", (side + 50, side), 10 * number).save(tmp_path / "sized" / name / f"{number}.png")
    assert ImageFolderDataModule(tmp_path / "sized").image_size == size


def test_hidden_files_and_other_files_are_left_out(folder):
    (folder / "zero" / ".hidden.png").write_bytes(b"")
    (folder / "zero" / "notes.txt").write_text("no image")
    (folder / ".cache").mkdir()
    assert sum(sizes(ready(folder)).values()) == 30


def corrupt(folder, kind):
    path = sorted((folder / "one").iterdir())[3]
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:60])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.write_text("this is no image")
    return path


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
def test_a_bad_image_is_named(folder, kind):
    path = corrupt(folder, kind)
    with pytest.raises(UserError, match=f"{path}.*on_bad_image: skip"):
        ready(folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_named_by_the_ordinary_path(folder, workers):
    path = corrupt(folder, "truncated")
    data = ready(folder, in_memory=False, num_workers=workers)
    with pytest.raises(UserError, match=str(path)):  # noqa: PT012 - in whichever split it lies
        for split in ("train_eval_dataloader", "val_dataloader", "test_dataloader"):
            list(getattr(data, split)())


@pytest.mark.parametrize("in_memory", [True, False])
def test_bad_images_are_skipped_counted_and_listed(folder, in_memory):
    path = corrupt(folder, "truncated")
    with pytest.warns(UserWarning, match=f"(?s)Skipped 1 of 30 images:.*{path}"):
        data = ready(folder, on_bad_image="skip", in_memory=in_memory, num_workers=0)
    assert sum(sizes(data).values()) == 29
    assert len(data.bad_images) == 1
    assert str(path) in data.bad_images[0]
    assert sum(len(targets) for _, targets in data.val_dataloader()) == sizes(data)["val"]


def test_wrong_folders(folder, tmp_path):
    def refused(says, root, **options):
        with pytest.raises(UserError, match=says):
            ready(root, **options)

    empty = tmp_path / "empty"
    refused("`root` must be a folder of images, got", empty)
    empty.mkdir()
    refused(f"No class folders in {empty}. Put the images of each class", empty)
    Image.new("L", (8, 8)).save(empty / "loose.png")
    refused("but 1 loose images", empty)
    (empty / "hollow").mkdir()
    refused("No images in .*hollow", empty)
    single = tmp_path / "single"
    shutil.copytree(folder / "one", single / "one")
    refused(r"at least 2 classes, got 1 \(one\)", single)
    refused("fewer of one", shutil.copytree(folder, tmp_path / "few") and _leave_one(tmp_path / "few"))
    differing = tmp_path / "differing"
    for split in ("train", "val"):
        shutil.copytree(folder, differing / split)
    (differing / "val" / "one").rename(differing / "val" / "ones")
    refused("val split .* has classes that train has not: ones. Did you mean `one`", differing)
    shutil.rmtree(differing / "val" / "ones")
    refused("val split .* lacks classes that train has: one", differing)
    refused(r"`channels` must be 1 \(grey\) or 3", folder, channels=4)


def _leave_one(root):
    for path in sorted((root / "one").iterdir())[1:]:
        path.unlink()
    return root


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        ([("nowhere.png", "a")], ("path", "label"), "line 2: no file .*nowhere.png"),
        ([("x", "a")], ("file", "class"), r"needs the columns `path` and `label`, got \['file', 'class'\]"),
        ([], ("path", "label"), "got no rows"),
        (
            [("one/010.png", "a", "training")],
            ("path", "label", "split"),
            "line 2: `split` must be train, val or test",
        ),
        ([("one/010.png", "a", "val")], ("path", "label", "split"), "no row whose `split` is train"),
        ([("one/010.png", "")], ("path", "label"), "010.png has no label"),
        ([("one/010.png", "a")], ("path", "label"), "at least 2 classes, got 1"),
    ],
)
def test_wrong_csvs(folder, rows, columns, says):
    write_csv(folder / "labels.csv", rows, columns)
    with pytest.raises(UserError, match=says):
        ready(folder, labels="labels.csv")


def test_a_csv_that_is_not_there(folder):
    with pytest.raises(UserError, match="neither here nor in"):
        ready(folder, labels="nothing.csv")
