"""Markdown in which foreign text stays text."""

from __future__ import annotations

import re

# What Markdown or HTML would act on, and controls, bidi marks and lone surrogates, which no table should hold.
_ACTIVE = re.compile(r"[\\`*\[\]<>|~&$#!@]|(?<![^\W_])_|_(?![^\W_])|://|(?<=www)\.")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]+")


def escaped(text: str) -> str:
    """Foreign text as text: whatever Markdown, HTML or the Hub would act on is written as a character reference."""
    safe = _ACTIVE.sub(lambda match: "".join(f"&#{ord(char)};" for char in match[0]), plain(text))
    return safe or "(empty)"


def plain(text: str) -> str:
    """Foreign text on one line, without characters that are not seen."""
    return _UNSAFE.sub(" ", text).strip()
