"""Layers and batch transforms."""
