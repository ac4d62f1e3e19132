"""Image data: read, split, normalised, augmented and batched."""

if __name__ != "lightning_recipes.datamodules":
    raise ImportError("Import `lightning_recipes.datamodules`: the top-level folder is a view for readers.")

from .base import ImageDataModule
from .cached_features import CachedFeatures
from .digits import DigitsDataModule
from .image_folder import ImageFolderDataModule
from .torchvision_data import TorchvisionDataModule

__all__ = [
    "CachedFeatures",
    "DigitsDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "TorchvisionDataModule",
]
