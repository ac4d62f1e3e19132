"""Callbacks for any LightningModule."""

if __name__ != "lightning_recipes.callbacks":
    raise ImportError("Import `lightning_recipes.callbacks`: the top-level folder is a view for readers.")

from .early_stopping import EarlyStoppingWithRestore
from .ema import EMA
from .exact_resume import ExactResume
from .gradients import GradientMonitor
from .learning_curves import LearningCurves
from .snapshot_ensemble import SnapshotEnsemble
from .swa import SWA
from .update_ratio import UpdateRatioMonitor

__all__ = [
    "EMA",
    "SWA",
    "EarlyStoppingWithRestore",
    "ExactResume",
    "GradientMonitor",
    "LearningCurves",
    "SnapshotEnsemble",
    "UpdateRatioMonitor",
]
