"""Callbacks for any LightningModule."""

if __name__ != "lightning_recipes.callbacks":
    raise ImportError("Import `lightning_recipes.callbacks`: the top-level folder is a view for readers.")

from .learning_curves import LearningCurves

__all__ = ["LearningCurves"]
