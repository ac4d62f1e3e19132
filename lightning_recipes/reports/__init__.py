"""Findings and figures as tables and pages."""
