"""Judging a finished model."""
