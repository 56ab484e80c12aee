"""Markdown in which foreign text stays text."""

from __future__ import annotations

import re

from textclf.characters import UNSEEN

# What Markdown or HTML would act on.
_ACTIVE = re.compile(r"[\\`*\[\]<>|~&$#!@]|(?<![^\W_])_|_(?![^\W_])|://|(?<=www)\.")


def escaped(text: str) -> str:
    """Foreign text as text: whatever Markdown, HTML or the Hub would act on is written as a character reference."""
    safe = _ACTIVE.sub(lambda match: "".join(f"&#{ord(char)};" for char in match[0]), plain(text))
    return safe or "(empty)"


def plain(text: str) -> str:
    """Foreign text on one line, without characters that are not seen."""
    return re.sub(" +", " ", UNSEEN.sub(" ", text)).strip()
