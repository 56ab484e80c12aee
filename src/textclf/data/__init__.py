"""Texts and labels, in arrow and numpy; no torch."""
