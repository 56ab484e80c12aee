"""Cells that a spreadsheet shows as they are. Light: no numpy."""

from __future__ import annotations

# What a spreadsheet takes for the start of a formula (OWASP), the full-width forms included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0", "＝", "＋", "－", "＠")


def guarded(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would take it for a formula."""
    return "'" + text if text.startswith(_FORMULA) else text
