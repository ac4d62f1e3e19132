"""The handbook of training neural networks, as PyTorch Lightning parts."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from .utils.lazy import lazy_names

if TYPE_CHECKING:
    from .callbacks import EMA as EMA
    from .callbacks import LSUV as LSUV
    from .callbacks import SWA as SWA
    from .callbacks import ActivationMonitor as ActivationMonitor
    from .callbacks import EarlyStoppingWithRestore as EarlyStoppingWithRestore
    from .callbacks import ExactResume as ExactResume
    from .callbacks import FineTuning as FineTuning
    from .callbacks import GradientMonitor as GradientMonitor
    from .callbacks import InitialLossCheck as InitialLossCheck
    from .callbacks import LearningCurves as LearningCurves
    from .callbacks import MaxNorm as MaxNorm
    from .callbacks import OverfitBatchCheck as OverfitBatchCheck
    from .callbacks import SnapshotEnsemble as SnapshotEnsemble
    from .callbacks import TrainingDoctor as TrainingDoctor
    from .callbacks import UpdateRatioMonitor as UpdateRatioMonitor
    from .callbacks import WeightPenalty as WeightPenalty
    from .datamodules import Augmentation as Augmentation
    from .datamodules import CachedFeatures as CachedFeatures
    from .datamodules import DigitsDataModule as DigitsDataModule
    from .datamodules import ImageDataModule as ImageDataModule
    from .datamodules import ImageFolderDataModule as ImageFolderDataModule
    from .datamodules import Mixing as Mixing
    from .datamodules import TorchvisionDataModule as TorchvisionDataModule
    from .modules import EnsembleClassifier as EnsembleClassifier
    from .modules import ImageClassifier as ImageClassifier
    from .schedules import Schedule as Schedule

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "ActivationMonitor": "callbacks",
        "Augmentation": "datamodules",
        "CachedFeatures": "datamodules",
        "DigitsDataModule": "datamodules",
        "EMA": "callbacks",
        "EarlyStoppingWithRestore": "callbacks",
        "EnsembleClassifier": "modules",
        "ExactResume": "callbacks",
        "FineTuning": "callbacks",
        "GradientMonitor": "callbacks",
        "ImageClassifier": "modules",
        "ImageDataModule": "datamodules",
        "ImageFolderDataModule": "datamodules",
        "InitialLossCheck": "callbacks",
        "LSUV": "callbacks",
        "LearningCurves": "callbacks",
        "MaxNorm": "callbacks",
        "Mixing": "datamodules",
        "OverfitBatchCheck": "callbacks",
        "SWA": "callbacks",
        "Schedule": "schedules",
        "SnapshotEnsemble": "callbacks",
        "TorchvisionDataModule": "datamodules",
        "TrainingDoctor": "callbacks",
        "UpdateRatioMonitor": "callbacks",
        "WeightPenalty": "callbacks",
    },
)
__version__ = version("lightning-recipes")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
