"""Checks: pure functions from evidence to a `Finding`, one symptom a file."""

from .causes import CAUSES
from .finding import Finding, Status, worst_first

__all__ = ["CAUSES", "Finding", "Status", "worst_first"]
