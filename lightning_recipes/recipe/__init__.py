"""The recipe: what a run goes through, from the first look at its data to the last curve."""

from .check import Report, check
from .transfer import TransferReport, advise_transfer

__all__ = ["Report", "TransferReport", "advise_transfer", "check"]
