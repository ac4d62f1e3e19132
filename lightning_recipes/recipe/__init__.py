"""The recipe: what a run goes through, from the first look at its data to the last curve."""

from .check import Report, check

__all__ = ["Report", "check"]
