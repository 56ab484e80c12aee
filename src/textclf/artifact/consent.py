"""Code of heads that this user has trained with on this machine, by content: what may run again without a word.

A model folder names the code of its head by SHA-256 alone. Where that code is here, the user has run it before; it is
run from here, and the copy in the folder is never opened.
"""

from __future__ import annotations

import hashlib
import re

from textclf import atomic, paths


def digest(source: str) -> str:
    """SHA-256 of code, in hex."""
    return hashlib.sha256(source.encode("utf-8")).hexdigest()


def remember(source: str) -> None:
    """Keep code that the user has named and trained with."""
    atomic.write_text(paths.heads_dir() / f"{digest(source)}.py", source)


def remembered(sha256: object) -> str | None:
    """The code of this digest, None where this user has not trained with it here. What is no digest has no code."""
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        return None
    try:
        source = (paths.heads_dir() / f"{sha256}.py").read_bytes().decode("utf-8")
    except (OSError, ValueError):
        return None
    return source if digest(source) == sha256 else None
