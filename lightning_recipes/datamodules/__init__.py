"""Image data: read, split, normalised, augmented and batched."""

if __name__ != "lightning_recipes.datamodules":
    raise ImportError("Import `lightning_recipes.datamodules`: the top-level folder is a view for readers.")

from .augmentation import Augmentation
from .base import ImageDataModule
from .cached_features import CachedFeatures
from .digits import DigitsDataModule
from .image_folder import ImageFolderDataModule
from .mixing import Mixing
from .torchvision_data import TorchvisionDataModule

__all__ = [
    "Augmentation",
    "CachedFeatures",
    "DigitsDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "Mixing",
    "TorchvisionDataModule",
]
