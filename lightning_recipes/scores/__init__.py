"""How good probabilities are: scores and their intervals, temperature, and the worth of an ensemble."""

from .bootstrap import bootstrap_interval, resampled_means
from .measures import accuracy, brier, disagreement, ece, ece_terms, nll, score_terms
from .report import EnsembleReport, EnsembleRow, Estimate, Scored, measure_ensemble
from .selection import select_members
from .temperature import fit_temperature, temper

__all__ = [
    "EnsembleReport",
    "EnsembleRow",
    "Estimate",
    "Scored",
    "accuracy",
    "bootstrap_interval",
    "brier",
    "disagreement",
    "ece",
    "ece_terms",
    "fit_temperature",
    "measure_ensemble",
    "nll",
    "resampled_means",
    "score_terms",
    "select_members",
    "temper",
]
