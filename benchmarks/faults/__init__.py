"""Runs with one known fault, and healthy ones: what a check is scored on."""
