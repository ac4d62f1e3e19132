"""Images with their targets, wherever they lie, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from struct import error as StructError
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ..preprocessing import fit_geometry
from ..utils.errors import UserError

_CHUNK = 1024  # images a piece, where a whole data set is worked through


@dataclass(frozen=True)
class FileReader:
    """Read an image file as uint8 (channels, h, w).

    Args:
        channels: 1 turns the image grey, 3 makes it RGB.

    Raises:
        UserError: The file cannot be decoded.
    """

    channels: int

    def __call__(self, path: Path) -> Tensor:
        """Return the pixels."""
        try:
            with Image.open(path) as image:
                pixels: Tensor = F.pil_to_tensor(image.convert("L" if self.channels == 1 else "RGB"))
                return pixels
        except (
            OSError,
            SyntaxError,
            ValueError,
            StructError,
            EOFError,
            Image.DecompressionBombError,
        ) as error:
            reason = str(error).replace(f" {str(path)!r}", "")
            raise UserError(
                f"Cannot read the image {path}: {reason}. Repair or remove it, or set `on_bad_image: skip`."
            ) from error


@dataclass(frozen=True)
class ArrayReader:
    """Return an item that is a uint8 image already, with 1 or 3 channels."""

    channels: int

    def __call__(self, image: Tensor) -> Tensor:
        """Return the pixels."""
        if image.shape[-3] == self.channels:
            return image
        if self.channels == 1:
            grey: Tensor = F.rgb_to_grayscale(image)
            return grey
        return image.expand(*image.shape[:-3], 3, *image.shape[-2:])


@dataclass(frozen=True)
class Samples:
    """Images that are read one by one, and their targets.

    Args:
        items: What `reader` takes: paths, arrays, indices. One uint8 tensor (N, C, h, w) is read in one go.
        targets: int64 (N,), or float32 (N, K) when several labels may hold at once.
        reader: An item to uint8 (C, h, w); it must be picklable, for worker processes.
    """

    items: Sequence[Any] | Tensor
    targets: Tensor
    reader: Callable[[Any], Tensor]

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> Tensor:
        """Return one image, uint8 (C, h, w)."""
        return self.reader(self.items[index])

    def subset(self, indices: Tensor) -> Samples:
        """Return the samples at `indices`, int64 (n,)."""
        items = (
            self.items[indices] if isinstance(self.items, Tensor) else [self.items[int(i)] for i in indices]
        )
        return replace(self, items=items, targets=self.targets[indices])

    def stream(self, image_size: int, crop_pct: float) -> Iterator[Tensor]:
        """Yield all images in their eval geometry, uint8 (n, C, image_size, image_size), in order."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self), _CHUNK):
                indices = range(start, min(start + _CHUNK, len(self)))
                if isinstance(self.items, Tensor):
                    images = self.reader(self.items[start : start + _CHUNK])
                    yield fit_geometry(images, image_size, crop_pct)
                else:
                    yield torch.stack(
                        list(pool.map(lambda i: fit_geometry(self.read(i), image_size, crop_pct), indices))
                    )

    def load(self, image_size: int, crop_pct: float) -> Tensor:
        """Return all images in their eval geometry as one tensor, uint8 (N, C, image_size, image_size)."""
        out: Tensor | None = None
        start = 0
        for images in self.stream(image_size, crop_pct):
            if out is None:  # filled in place: a list and its concatenation would take the memory twice
                out = images.new_empty((len(self), *images.shape[1:]))
            out[start : start + len(images)] = images
            start += len(images)
        if out is None:
            raise UserError("Cannot load an empty split. Check the splits' fractions.")
        return out

    def unreadable(self) -> list[tuple[int, str]]:
        """Return the index and the reason of each image that cannot be decoded, by trying them all."""

        def reason(index: int) -> str | None:
            try:
                self.read(index)
            except UserError as error:
                return str(error)
            return None

        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            return [
                (i, text) for i, text in enumerate(pool.map(reason, range(len(self)))) if text is not None
            ]

    def without_unreadable(self) -> tuple[Samples, list[str]]:
        """Return the samples that can be decoded, and the reasons of those that cannot, with a warning."""
        bad = self.unreadable()
        if not bad:
            return self, []
        listed = "\n".join(f"  {text}" for _, text in bad[:20])
        more = f"\n  and {len(bad) - 20} more, in `bad_images`" if len(bad) > 20 else ""
        rank_zero_warn(f"Skipped {len(bad)} of {len(self)} images:\n{listed}{more}")
        keep = torch.ones(len(self), dtype=torch.bool)
        keep[[index for index, _ in bad]] = False
        return self.subset(keep.nonzero().flatten()), [text for _, text in bad]
