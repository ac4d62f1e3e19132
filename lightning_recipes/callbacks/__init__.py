"""Callbacks for any LightningModule."""

if __name__ != "lightning_recipes.callbacks":
    raise ImportError("Import `lightning_recipes.callbacks`: the top-level folder is a view for readers.")

from .activations import ActivationMonitor
from .early_stopping import EarlyStoppingWithRestore
from .ema import EMA
from .exact_resume import ExactResume
from .fine_tuning import FineTuning
from .gradients import GradientMonitor
from .initial_loss import InitialLossCheck
from .learning_curves import LearningCurves
from .lsuv import LSUV
from .max_norm import MaxNorm
from .overfit_batch import OverfitBatchCheck
from .snapshot_ensemble import SnapshotEnsemble
from .swa import SWA
from .training_doctor import TrainingDoctor
from .update_ratio import UpdateRatioMonitor
from .weight_penalty import WeightPenalty

__all__ = [
    "EMA",
    "LSUV",
    "SWA",
    "ActivationMonitor",
    "EarlyStoppingWithRestore",
    "ExactResume",
    "FineTuning",
    "GradientMonitor",
    "InitialLossCheck",
    "LearningCurves",
    "MaxNorm",
    "OverfitBatchCheck",
    "SnapshotEnsemble",
    "TrainingDoctor",
    "UpdateRatioMonitor",
    "WeightPenalty",
]
