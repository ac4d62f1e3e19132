"""Transfer: which parts of a pretrained network learn, when, and how fast."""

from .depth import Depths, depths, whole
from .freezing import Freezer, norm_layers
from .peaks import scale_peaks, schedulers_of
from .policies import PolicyName, first_trained_stage, probing_epochs
from .rates import Cut, Share, check_groups, layerwise_rates, rate_shares, split_group

__all__ = [
    "Cut",
    "Depths",
    "Freezer",
    "PolicyName",
    "Share",
    "check_groups",
    "depths",
    "first_trained_stage",
    "layerwise_rates",
    "norm_layers",
    "probing_epochs",
    "rate_shares",
    "scale_peaks",
    "schedulers_of",
    "split_group",
    "whole",
]
