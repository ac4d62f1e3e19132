"""All faults: those of the loss, of the data, of the model, and of the optimization."""

from __future__ import annotations

from . import faulty_data, faulty_losses, faulty_models, faulty_optimization
from .cases import Case

FAULTS: list[Case] = [
    *faulty_losses.CASES,
    *faulty_data.CASES,
    *faulty_models.CASES,
    *faulty_optimization.CASES,
]
