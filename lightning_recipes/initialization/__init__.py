"""Weights before the first step: by rule, by name, and by what they do to a batch."""

from .lsuv import lsuv, unit_variance
from .residual import zero_residual
from .schemes import SCHEMES, Scheme, initialize

__all__ = ["SCHEMES", "Scheme", "initialize", "lsuv", "unit_variance", "zero_residual"]
