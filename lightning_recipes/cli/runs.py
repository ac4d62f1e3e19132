"""A run's directory: made once, never written over, taken back when nothing came of the run."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from ..utils.errors import UserError
from ..utils.files import probe

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def free_directory(root: Path, name: str) -> Path:
    """Return `root/name-N` with the smallest N from 1 on that does not exist.

    >>> free_directory(Path("/nonexistent"), "digits").name
    'digits-1'
    """
    taken = {path.name for path in root.glob(f"{name}-*")}
    number = 1
    while f"{name}-{number}" in taken:
        number += 1
    return root / f"{name}-{number}"


@rank_zero_only
def claim(directory: Path, least_bytes: int) -> None:
    """Make the directory of a new run.

    Args:
        directory: Must not exist, or be empty.
        least_bytes: What the run's checkpoints will take.

    Raises:
        UserError: It exists and holds files, cannot be written, or lies on a disk without the room.
    """
    if directory.is_dir() and any(directory.iterdir()):
        raise UserError(
            f"`run_dir` {directory} holds files already. Give another, or leave it out for a new one."
        )
    with explain_write_errors(directory):
        probe(directory / "run")
    free = shutil.disk_usage(directory).free
    if free < least_bytes:
        directory.rmdir()
        raise UserError(
            f"The run's checkpoints take {least_bytes / 2**20:.0f} MiB, but the disk of {directory} has "
            f"{free / 2**20:.0f} MiB left. Free some space, or give `run_dir` on another disk."
        )


@contextmanager
def explain_write_errors(directory: Path, argument: str = "run_dir") -> Iterator[None]:
    """Turn the errors of a full or read-only disk into a `UserError` that names the directory.

    Args:
        directory: Or file, that is written.
        argument: By which the user says where.

    Raises:
        UserError: Instead of such an `OSError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            remedy = f"Free some space, or give `{argument}` on another disk"
        elif error.errno in _FORBIDDEN or str(error.filename).startswith(str(directory)):
            remedy = f"Give `{argument}` in a folder that you may write"
        else:
            raise
        raise UserError(
            f"Cannot write to {directory}: {error.strerror}. {remedy}.{resume_hint(directory)}"
        ) from error


@rank_zero_only
def discard_if_barren(directory: Path) -> None:
    """Remove a run's directory when no checkpoint was written: nothing is left half-written."""
    if directory.is_dir() and not any(directory.rglob("*.ckpt")):
        shutil.rmtree(directory, ignore_errors=True)


def resume_hint(directory: Path) -> str:
    """Return a sentence, after a space, that says how to go on with a run that was cut off; or nothing."""
    last = directory / "last.ckpt"
    if not last.is_file():
        return ""
    config = f"--config {directory / 'config.yaml'} " if (directory / "config.yaml").is_file() else ""
    return f" What was trained until then is kept: go on from `{config}--ckpt_path {last}`."
