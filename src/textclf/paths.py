"""Where textclf keeps its files: a cache folder, a runs folder and a heads folder per user."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from textclf.errors import UsageError

if TYPE_CHECKING:
    from platformdirs import PlatformDirs

SLUG_LENGTH = 80


def cache_dir() -> Path:
    """Prepared data sets: may be deleted at any time. `$TEXTCLF_HOME/cache`, else the platform's cache folder."""
    return _home("cache") or _platform_dirs().user_cache_path


def runs_dir() -> Path:
    """Runs with their checkpoints and models. `$TEXTCLF_HOME/runs`, else `runs` in the platform's data folder."""
    return _home("runs") or _platform_dirs().user_data_path / "runs"


def heads_dir() -> Path:
    """Code of heads that were trained with. `$TEXTCLF_HOME/heads`, else `heads` in the platform's data folder."""
    return _home("heads") or _platform_dirs().user_data_path / "heads"


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path whose `~` is the user's home folder. Raises UsageError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as err:
        raise UsageError(f"{os.fspath(path)}: there is no such user", hint="give the whole path") from err


def slug(text: str) -> str:
    """A file name made of foreign text: lower case letters, digits, `-`, `_` and `.` only, never empty or hidden.

    The one way from a text to a path. Where the text had to change, eight hex digits of the text's
    SHA-256 keep unlike texts apart.
    """
    kept = re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")
    if kept == text and 0 < len(kept) <= SLUG_LENGTH:
        return kept
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept[: SLUG_LENGTH - 9].rstrip('-._')}-{digest}".lstrip("-")


def _home(part: str) -> Path | None:
    home = os.environ.get("TEXTCLF_HOME")
    return Path(home).expanduser().absolute() / part if home else None


def _platform_dirs() -> PlatformDirs:
    from platformdirs import PlatformDirs

    return PlatformDirs("textclf", appauthor=False)
