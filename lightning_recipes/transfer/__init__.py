"""Transfer: which parts of a pretrained network learn, when, and how fast."""

from .depth import Depths, depths, whole
from .freezing import Freezer, norm_parameters
from .policies import PolicyName, first_trained_stage, probing_epochs
from .rates import Share, layerwise_rates, rate_shares, split_group

__all__ = [
    "Depths",
    "Freezer",
    "PolicyName",
    "Share",
    "depths",
    "first_trained_stage",
    "layerwise_rates",
    "norm_parameters",
    "probing_epochs",
    "rate_shares",
    "split_group",
    "whole",
]
