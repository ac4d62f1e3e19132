"""Callbacks for any LightningModule."""

if __name__ != "lightning_recipes.callbacks":
    raise ImportError("Import `lightning_recipes.callbacks`: the top-level folder is a view for readers.")

from .activations import ActivationMonitor
from .early_stopping import EarlyStoppingWithRestore
from .ema import EMA
from .exact_resume import ExactResume
from .learning_curves import LearningCurves
from .snapshot_ensemble import SnapshotEnsemble
from .swa import SWA

__all__ = [
    "EMA",
    "SWA",
    "ActivationMonitor",
    "EarlyStoppingWithRestore",
    "ExactResume",
    "LearningCurves",
    "SnapshotEnsemble",
]
