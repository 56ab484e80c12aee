"""The names of splits, and which of a source's is which of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

from textclf.data.rows import SPLIT_NAMES, SPLITS
from textclf.errors import DataError


def assign_splits(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Which of the source's split names is train, validation and test, with notes on those left out.

    A name proper (`dev`) goes before one that only contains it (`auxiliary_train`, `dev_matched`), which
    is taken when there is nothing else; of several, the one that comes first in SPLIT_NAMES.
    """
    names = list(names)
    chosen: dict[str, str] = {}
    by_lower = {name.lower(): name for name in reversed(names)}
    for known, split in SPLIT_NAMES.items():
        if known in by_lower:
            chosen.setdefault(split, by_lower[known])
    notes = []
    for name in sorted(names):
        words = [SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_NAMES]
        if words and name not in chosen.values() and words[-1] not in chosen:
            chosen[words[-1]] = name
            notes.append(f"{words[-1]} is read from {name}")
    unread = [name for name in names if name not in chosen.values()]
    if chosen and unread:
        notes.append(f"left unread, being no split or a second one of its kind: {', '.join(unread[:8])}")
    return {split: chosen[split] for split in SPLITS if split in chosen}, notes


def no_known_split(name: str, splits: list[str]) -> DataError:
    """The error for a source none of whose splits is one of ours."""
    return DataError(f"{name}: no split is called train, validation or test; its splits are {', '.join(splits[:8])}")
