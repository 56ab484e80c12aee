"""Texts that look wrong by themselves: damaged by an encoding, no text at all, far longer than the rest."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textclf.data.cleaning import blank
from textclf.data.rows import Rows

# What UTF-8 looks like when it was read as Latin-1 or Windows-1252: a leading byte and one that follows it.
_FOLLOWING = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_MOJIBAKE = f"[ÃÐÑ][{_FOLLOWING}]|[ÅÄ][\x80-\x9f\xa1-\xbf]|Â[\xa0-\xbf]|â€[{_FOLLOWING}]|ðŸ[{_FOLLOWING}]|ï¿½"
DAMAGE = {
    "the replacement character U+FFFD": "\ufffd",
    "control characters U+0080 to U+009F": "[\x80-\x9f]",
    "a byte order mark U+FEFF": "\ufeff",
    "UTF-8 read as another encoding": _MOJIBAKE,
}
"""What an encoding gone wrong leaves in a text, as a regular expression."""

_LETTERS = r"[\pL\pS\pM]"
_ONE_WORD = r"^\s*[!-~]{250,}\s*$"
"""Base64 and its like. Links are shorter, and scripts without blanks are no ASCII."""
_FAR = 4
"""Times the 99th percentile of the lengths from which a text is far longer than the others..."""
_LONG = 400
"""... if it has this many characters too."""


def damaged(rows: Rows) -> dict[str, np.ndarray]:
    """Which rows hold what an encoding gone wrong leaves: kind of damage -> (rows,) bool. No text is null."""
    return {kind: np.asarray(_matches(rows, pattern).any(axis=0)) for kind, pattern in DAMAGE.items()}


def not_text(rows: Rows) -> np.ndarray:
    """Which rows hold neither a letter nor a symbol such as an emoji, or one endless word: (rows,) bool.

    Empty texts are not among them. Of pairs, either text.
    """
    blank_N = np.stack([blank(one) for one in _texts(rows)])
    return ((~_matches(rows, _LETTERS) & ~blank_N) | _matches(rows, _ONE_WORD)).any(axis=0)  # type: ignore[no-any-return]


def character_lengths(rows: Rows) -> np.ndarray:
    """Characters of each text, or of both texts of a pair: (rows,) int64."""
    return np.stack([pc.utf8_length(one).to_numpy().astype(np.int64) for one in _texts(rows)]).sum(axis=0)  # type: ignore[no-any-return]


def very_long(lengths_N: np.ndarray) -> np.ndarray:
    """Which texts are far longer than the others: (rows,) bool."""
    if not len(lengths_N):
        return np.zeros(0, dtype=bool)
    return lengths_N > max(_LONG, _FAR * float(np.percentile(lengths_N, 99)))  # type: ignore[no-any-return]


def _matches(rows: Rows, pattern: str) -> np.ndarray:
    """Where a regular expression is found: (1 or 2 texts a row, rows) bool."""
    return np.stack([pc.match_substring_regex(one, pattern=pattern).to_numpy() for one in _texts(rows)])


def _texts(rows: Rows) -> list[pa.ChunkedArray]:
    return [rows.table.column(name) for name in rows.text_names]
