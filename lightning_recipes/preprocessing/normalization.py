"""What is done to the range of the pixels: an offset, a scale and, of whole images, a linear map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Normalization:
    r"""Pixels :math:`x` in 0..255 become :math:`y = (x/255 - \text{mean})/\text{std}`, then :math:`yM`.

    All in units of [0, 1] pixels. Two with the same numbers are equal.

    Args:
        mean: One a channel, or a mean image (C, S, S).
        std: One a channel.
        matrix: M, float32 (D, D) with D = C·S·S: it takes a flattened image and gives one.

    >>> grey = Normalization((0.5,), (0.25,))
    >>> grey.apply(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    tensor([[[[-2.,  2.]]]])
    """

    mean: tuple[float, ...] | Tensor
    std: tuple[float, ...]
    matrix: Tensor | None = None
    _placed: dict[torch.device, tuple[Tensor, Tensor, Tensor | None]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        """Keep tensors as a checkpoint does, wherever they were fitted or loaded."""
        for name in ("mean", "matrix"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                object.__setattr__(self, name, value.to("cpu", torch.float32))

    @classmethod
    def none(cls, channels: int) -> Normalization:
        """Return the one that only scales to [0, 1]."""
        return cls((0.0,) * channels, (1.0,) * channels)

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(C, S, S) of the images that it is for; None where it knows channels only."""
        return tuple(self.mean.shape) if isinstance(self.mean, Tensor) else None

    def apply(self, images: Tensor) -> Tensor:
        """Return normalised images, float32 (B, C, H, W), on the device of `images`.

        Args:
            images: uint8, or any number in 0..255, (B, C, H, W).
        """
        return self.rotate(self.scale(images))

    def scale(self, images: Tensor) -> Tensor:
        """Return what there is before the matrix, whose numbers still have places; otherwise as `apply`."""
        mean, std, _ = self._on(images.device)
        return images.to(torch.float32, copy=True).sub_(mean).div_(std)

    def rotate(self, images: Tensor) -> Tensor:
        """Return (B, C, H, W), images of `scale` times the matrix where there is one."""
        matrix = self._on(images.device)[2]
        return images if matrix is None else (images.flatten(1) @ matrix).view(images.shape)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return mean and std in units of bytes, and the matrix; moved there once."""
        if device not in self._placed:
            image = isinstance(self.mean, Tensor)
            mean = self.mean if isinstance(self.mean, Tensor) else torch.tensor(self.mean)
            self._placed[device] = (
                (mean if image else mean.view(1, -1, 1, 1)).to(device) * 255,
                torch.tensor(self.std, device=device).view(1, -1, 1, 1) * 255,
                None if self.matrix is None else self.matrix.to(device),
            )
        return self._placed[device]

    def to_dict(self) -> dict[str, Any]:
        """Return lists and, where there are many numbers, tensors; for a checkpoint."""
        mean = self.mean if isinstance(self.mean, Tensor) else list(self.mean)
        plain: dict[str, Any] = {"mean": mean, "std": list(self.std)}
        return plain if self.matrix is None else {**plain, "matrix": self.matrix}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Normalization:
        """Return what `to_dict` stored."""
        mean = stored["mean"]
        return cls(
            mean if isinstance(mean, Tensor) else tuple(mean), tuple(stored["std"]), stored.get("matrix")
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what lies on devices: workers and copies make their own."""
        return {**self.__dict__, "_placed": {}}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Normalization):
            return NotImplemented
        return self.std == other.std and _same(self.mean, other.mean) and _same(self.matrix, other.matrix)

    def __hash__(self) -> int:
        return hash((self.std, self.image_shape or self.mean))


def _same(one: object, two: object) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return torch.equal(one, two)
    return not isinstance(one, Tensor) and not isinstance(two, Tensor) and one == two
