"""Files that are written whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a file beside `path`, which takes its place when the block ends without an error.

    Folders that are missing are made.

    Raises:
        OSError: The disk is full, or cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def run_directory(trainer: Any, dirpath: str | os.PathLike[str] | None) -> Path:  # noqa: ANN401 - a Trainer
    """Return where a callback writes: `dirpath`, or else the run's directory.

    To be asked for on every rank, for `log_dir` is a collective call.
    """
    log_dir = trainer.log_dir
    return Path(dirpath or log_dir or trainer.default_root_dir)


def save_whole(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint: what stands at `path` is always whole.

    Raises:
        OSError: The disk is full, or cannot be written.
    """
    with replacing(path) as partial:
        try:
            with partial.open("wb") as file:
                torch.save(dict(checkpoint), file)
        except RuntimeError as error:  # torch's writer covers what the system said with its own complaint
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as a CSV: what stands at `path` is always whole.

    Raises:
        OSError: The disk is full, or cannot be written.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def probe(path: str | os.PathLike[str]) -> None:
    """Find out, before the work that fills it, whether a file can be written at `path`.

    Raises:
        OSError: It cannot.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.touch()
    partial.unlink()
