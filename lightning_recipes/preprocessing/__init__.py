"""From stored pixels to what a network is fed: geometry, range and normalisation."""

from .channels import channel_covariance, channel_mean, channel_statistics
from .fitting import Fitted, fit_normalization
from .geometry import fit_geometry
from .moments import Moments
from .normalization import Normalization
from .preprocessing import Preprocessing

__all__ = [
    "Fitted",
    "Moments",
    "Normalization",
    "Preprocessing",
    "channel_covariance",
    "channel_mean",
    "channel_statistics",
    "fit_geometry",
    "fit_normalization",
]
