"""Images in folders, or listed in a CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..utils.errors import UserError, did_you_mean
from .base import ImageDataModule
from .samples import FileReader, Samples

_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
_PROBED = 32  # images whose headers tell the channels and the size


class ImageFolderDataModule(ImageDataModule):
    """Images on disk, in any of three layouts.

    - `root/CLASS/*.png`: one folder a class; the splits are ours.
    - `root/train/CLASS/*.png`, with `val` and `test` beside `train`: a missing one is split off.
    - a CSV with the columns `path` and `label`, and, if the splits are given, `split` (train, val or test).
      Paths are relative to `root`. Several labels in one field, apart by `|`, make the task multi-label.

    The number of channels and the default image size come from the files: grey only when all that were probed
    are; the median shorter side, rounded to a multiple of 32, from 32 to 224 pixels.

    Args:
        root: The folder; with `labels`, what its paths are relative to.
        labels: The CSV; a relative path is looked for here and then in `root`.
        channels: 1 (grey) or 3 (RGB); by default from the files.
        options: All arguments of `ImageDataModule`.

    Raises:
        UserError: No such folder, no images in it, a single class, classes that differ between splits, a CSV
            without the columns or naming a file that is not there.
    """

    def __init__(
        self,
        root: str | PathLike[str],
        *,
        labels: str | PathLike[str] | None = None,
        channels: int | None = None,
        **options: Any,  # noqa: ANN401 - handed on to ImageDataModule, whose signature the CLI reads
    ) -> None:
        super().__init__(**options)
        if channels not in (None, 1, 3):
            raise UserError(f"`channels` must be 1 (grey) or 3 (RGB), got {channels}.")
        self.root = Path(root).expanduser()
        self.labels = None if labels is None else Path(labels).expanduser()
        self._channels = channels

    @property
    def class_names(self) -> list[str]:
        """The names of the folders or labels, sorted."""
        return self._listing[0]

    @property
    def channels(self) -> int:
        """1 when all probed files are grey, else 3."""
        return self._channels or self._probe[0]

    @property
    def image_size(self) -> int:
        """Side of the images in a batch, pixels."""
        return self._image_size or self._probe[1]

    def load_samples(self) -> dict[str, Samples]:
        """Return what the folders or the CSV list, by split."""
        names, listed = self._listing
        index = {name: number for number, name in enumerate(names)}
        multi_label = any(len(labels) != 1 for rows in listed.values() for _, labels in rows)
        out = {}
        for split, rows in listed.items():
            numbers = [[index[label] for label in labels] for _, labels in rows]
            targets = (
                _multi_hot(numbers, len(names)) if multi_label else torch.tensor([n for (n,) in numbers])
            )
            out[split] = Samples([path for path, _ in rows], targets, FileReader(self.channels))
        return out

    @cached_property
    def _listing(self) -> tuple[list[str], dict[str, list[tuple[Path, list[str]]]]]:
        """Return the class names and, by split, each file with its labels."""
        if not self.root.is_dir():
            raise UserError(f"`root` must be a folder of images, got {self.root}, which is not there.")
        if self.labels is not None:
            listed = _read_csv(self.root, self.labels)
        else:
            folders = {
                split: next((self.root / name for name in names if (self.root / name).is_dir()), None)
                for split, names in _SPLITS.items()
            }
            if folders["train"] is None:
                listed = {"train": _read_classes(self.root)}
            else:
                listed = {
                    split: _read_classes(folder) for split, folder in folders.items() if folder is not None
                }
        classes = {split: {label for _, labels in rows for label in labels} for split, rows in listed.items()}
        names = sorted(classes["train"])
        if len(names) < 2:
            raise UserError(
                f"A classifier needs at least 2 classes, got {len(names)} ({', '.join(names)}) in "
                f"{self.root}. Put each class into a folder of its own."
            )
        for split, found in classes.items():
            if strange := sorted(found - classes["train"]):
                hint = did_you_mean(strange[0], names)
                raise UserError(
                    f"The {split} split of {self.root} has classes that train has not: "
                    f"{', '.join(strange[:5])}.{hint} "
                    "Give every split the same classes."
                )
            if self.labels is None and (missing := sorted(classes["train"] - found)):
                raise UserError(
                    f"The {split} split of {self.root} lacks classes that train has: "
                    f"{', '.join(missing[:5])}. "
                    "Give every split the same classes."
                )
        return names, listed

    @cached_property
    def _probe(self) -> tuple[int, int]:
        """Return channels and image size, from the headers of a few files."""
        paths = [path for rows in self._listing[1].values() for path, _ in rows]
        sides, grey = [], []
        for path in paths[:: max(len(paths) // _PROBED, 1)]:
            try:
                with Image.open(path) as image:
                    sides.append(min(image.size))
                    grey.append(image.mode in ("1", "L", "LA", "I", "I;16", "F"))
            except OSError:
                continue  # reading the samples names it, or skips it
        if not sides:
            raise UserError(
                f"None of the probed files in {self.root} is a readable image, such as {paths[0]}."
            )
        median = sorted(sides)[len(sides) // 2]
        return 1 if all(grey) else 3, min(max(round(median / 32) * 32, 32), 224)


def find_images(folder: Path) -> list[Path]:
    """Return the image files below `folder`, sorted, hidden ones left out.

    >>> find_images(Path("/nonexistent"))
    []
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMG_EXTENSIONS
        and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def _read_classes(folder: Path) -> list[tuple[Path, list[str]]]:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    rows = {entry.name: [(path, [entry.name]) for path in find_images(entry)] for entry in classes}
    if empty := [name for name, found in rows.items() if not found]:
        listed = ", ".join(IMG_EXTENSIONS)
        raise UserError(
            f"No images in {folder / empty[0]}. A class folder needs files ending in {listed}; remove it if "
            "it is none."
        )
    if not rows:
        loose = len(find_images(folder))
        raise UserError(
            f"No class folders in {folder}"
            + (f" (but {loose} loose images)" if loose else "")
            + ". Put the images of each class into a folder of its own, or list them in a CSV and give "
            "`labels`."
        )
    return [row for found in rows.values() for row in found]


def _read_csv(root: Path, labels: Path) -> dict[str, list[tuple[Path, list[str]]]]:
    source = labels if labels.is_file() else root / labels
    if not source.is_file():
        raise UserError(f"`labels` must be a CSV file, got {labels}, which is neither here nor in {root}.")
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    if not {"path", "label"} <= set(columns):
        raise UserError(f"{source} needs the columns `path` and `label`, got {columns or 'no rows'}.")
    listed: dict[str, list[tuple[Path, list[str]]]] = {}
    for number, row in enumerate(rows, start=2):  # as an editor counts: the header is line 1
        split = row.get("split") or "train"
        if split not in _SPLITS:
            raise UserError(f"{source}, line {number}: `split` must be train, val or test, got {split!r}.")
        path = root / (row["path"] or "")
        if not path.is_file():
            raise UserError(f"{source}, line {number}: no file {path}. Paths are relative to `root`.")
        names = [name.strip() for name in (row["label"] or "").split("|") if name.strip()]
        listed.setdefault(split, []).append((path, names))
    if "train" not in listed:
        raise UserError(f"{source} has no row whose `split` is train.")
    if not any(len(names) > 1 for found in listed.values() for _, names in found):
        for found in listed.values():
            for path, names in found:
                if not names:
                    raise UserError(f"{source}: {path.name} has no label.")
    return listed


def _multi_hot(numbers: Sequence[Sequence[int]], classes: int) -> Tensor:
    """Return float32 (N, classes), 1 where a label holds."""
    out = torch.zeros(len(numbers), classes)
    for row, chosen in zip(out, numbers, strict=True):
        row[list(chosen)] = 1
    return out
