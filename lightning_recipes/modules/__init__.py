"""LightningModules that wrap timm backbones."""

from .classifier import ImageClassifier

__all__ = ["ImageClassifier"]
