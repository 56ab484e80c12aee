"""Which characters of foreign text no reader sees as they are, or a terminal acts on."""

from __future__ import annotations

import re

UNSEEN = re.compile(
    # C0 and C1 controls, DEL, line and paragraph separators, lone surrogates.
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
    # Marks of direction: a text in which they stand is read in another order than it is written.
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"
    # Without width: soft hyphen, zero-width space, word joiner and its kin, byte order mark, annotations, tags.
    "\xad\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
    # Joiners too, but between characters beyond ASCII: Persian and emoji are written with them.
    "|(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])"
)


def safe(text: str) -> str:
    r"""Foreign text on one line that no terminal acts on: control characters become `\n`, `\x1b`, `\u202e`."""
    return UNSEEN.sub(_escape, text)


def field(text: str) -> str:
    r"""As `safe`, and undoable: a backslash of the text's own is doubled. Never holds a tab or a line break."""
    return safe(text.replace("\\", "\\\\"))


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    code = ord(char)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
