"""LightningModules that wrap timm backbones."""

from .classifier import ImageClassifier
from .ensemble import EnsembleClassifier

__all__ = ["EnsembleClassifier", "ImageClassifier"]
