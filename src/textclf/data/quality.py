"""What a person should know of the data before training. Rows are named, texts never shown: they may be hateful."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from textclf.data.cleaning import empty
from textclf.data.rows import Rows, codes

_SHOWN = 5
_LOPSIDED = 0.9
"""Share of one label above which always answering it already looks good."""


@dataclass(frozen=True)
class Finding:
    """Something about the data that a person should know, and what could be done about it."""

    message: str
    hint: str | None = None


@dataclass(frozen=True)
class Balance:
    """How the rows of a split are spread over the labels that occur in it."""

    rows: int
    labels: int
    smallest: int
    median: float
    largest: int
    majority_share: float
    """Share of the rows that have the most frequent label, 0 to 1: with one label a row, the accuracy of always
    answering it."""


@dataclass(frozen=True)
class Overlap:
    """Rows of a split whose exact text is in train too."""

    rows: int
    conflicting: int
    """Those of them that train has under other labels only."""
    example: int | None
    """Position of the first such row, a conflicting one where there is one."""


@dataclass(frozen=True)
class TokenLengths:
    """How many tokens the texts have, special tokens included: percentiles of `texts` texts."""

    texts: int
    p50: int
    p90: int
    p95: int
    p99: int
    max: int


@dataclass(frozen=True)
class LabelsPerRow:
    """How many labels the rows of a split have, where they may have any number. none: rows without any."""

    mean: float
    max: int
    none: int


def labels_per_row(rows: Rows) -> LabelsPerRow:
    """How many labels a row has. At least one row."""
    counts_N = np.array([len(label or ()) for label in rows.labels])
    return LabelsPerRow(float(counts_N.mean()), int(counts_N.max()), int((counts_N == 0).sum()))


def balance(counts: Mapping[str, int], rows: int) -> Balance:
    """The balance of a split of `rows` rows with these label counts."""
    counts_C = np.array([count for count in counts.values() if count], dtype=np.int64)
    if not len(counts_C):
        return Balance(rows, 0, 0, 0.0, 0, 0.0)
    largest = int(counts_C.max())
    return Balance(rows, len(counts_C), int(counts_C.min()), float(np.median(counts_C)), largest, largest / rows)


def token_lengths(lengths_N: np.ndarray) -> TokenLengths:
    """Percentiles of the lengths (texts,); each is a length that occurs, so cutting there keeps that share whole."""
    if not len(lengths_N):
        return TokenLengths(0, 0, 0, 0, 0, 0)
    p50, p90, p95, p99 = np.percentile(lengths_N, [50, 90, 95, 99], method="higher").astype(int).tolist()
    return TokenLengths(len(lengths_N), p50, p90, p95, p99, int(lengths_N.max()))


def share_cut(lengths_N: np.ndarray, max_length: int) -> float:
    """Share of the texts, 0 to 1, that are longer than `max_length` and would lose their end."""
    return float((lengths_N > max_length).mean()) if len(lengths_N) else 0.0


def duplicates(rows: Rows) -> int:
    """How many rows repeat the exact text of an earlier row."""
    (texts_N,) = codes([rows], "text")
    return len(rows) - int(np.count_nonzero(np.bincount(texts_N)))


def conflicts(rows: Rows) -> list[int]:
    """Positions of rows whose exact text stands under another label too, in order."""
    texts_N, labels_N = codes([rows], "text")[0], codes([rows], "label")[0]
    if not len(rows):
        return []
    lowest_G = np.full(texts_N.max() + 1, np.iinfo(np.int64).max)
    highest_G = np.full(texts_N.max() + 1, -1)
    np.minimum.at(lowest_G, texts_N, labels_N)
    np.maximum.at(highest_G, texts_N, labels_N)
    return np.flatnonzero((lowest_G != highest_G)[texts_N]).tolist()


def overlap(train: Rows, other: Rows) -> Overlap:
    """Which rows of another split have an exact copy in train."""
    train_texts_N, texts_N = codes([train, other], "text")
    train_labels_N, labels_N = codes([train, other], "label")
    num_texts = max(train_texts_N.max(initial=0), texts_N.max(initial=0)) + 1
    num_labels = max(train_labels_N.max(initial=0), labels_N.max(initial=0)) + 1
    shared_N = _occurs(train_texts_N, num_texts)[texts_N]
    copied = _occurs(texts_N, num_texts)[train_texts_N]
    pairs = train_texts_N[copied] * num_labels + train_labels_N[copied]
    agrees_N = np.isin(texts_N * num_labels + labels_N, pairs)
    conflicting_N = shared_N & ~agrees_N
    positions = np.flatnonzero(conflicting_N if conflicting_N.any() else shared_N)
    return Overlap(int(shared_N.sum()), int(conflicting_N.sum()), int(positions[0]) if len(positions) else None)


def _occurs(numbers: np.ndarray, count: int) -> np.ndarray:
    """Which of 0 to count - 1 are among these: (count,) bool."""
    found = np.zeros(count, dtype=bool)
    found[numbers] = True
    return found


def lookalikes(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of label names that differ by case or outer blanks only."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.strip().casefold()].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def findings(splits: Mapping[str, Rows], counts: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    """All that these measures have to say about train, validation and test; nothing where all is well.

    counts: split -> label -> rows; empty where the labels of rows are not what is learnt.
    """
    train = splits["train"]
    return [
        *(_of_labels(counts, train) if counts else []),
        *(finding for split, rows in splits.items() for finding in _of_empty(split, rows)),
        *_of_copies(train),
        *(finding for split, rows in splits.items() if split != "train" for finding in _of_overlap(train, split, rows)),
    ]


def _of_labels(counts: Mapping[str, Mapping[str, int]], train: Rows) -> list[Finding]:
    found = []
    for group in lookalikes(list(counts["train"])):
        found.append(
            Finding(
                f"labels that differ only by case or outer blanks: {', '.join(map(repr, group))}",
                "if they mean the same, write them alike in the file",
            )
        )
    state = balance(counts["train"], len(train))
    if train.kind == "single" and state.majority_share >= _LOPSIDED:
        found.append(
            Finding(
                f"{state.majority_share:.1%} of train has one label; always answering it scores that accuracy",
                "judge by macro_f1 rather than accuracy (--set train.metric=macro_f1)",
            )
        )
    lone = [name for name, count in counts["train"].items() if count == 1]
    if lone:
        found.append(
            Finding(
                f"{counted(len(lone), 'label')} with only one row in train: {_listed(lone)}",
                "drop such labels with --min-label-count 2 (or more), or add rows",
            )
        )
    for split, of_split in counts.items():
        # A label of one row cannot be in two splits, which is said already.
        absent = [name for name, count in of_split.items() if not count and counts["train"][name] != 1]
        if absent:
            found.append(Finding(f"{counted(len(absent), 'label')} without a row in {split}: {_listed(absent)}"))
    return found


def _of_empty(split: str, rows: Rows) -> list[Finding]:
    blank = np.flatnonzero(empty(rows))
    if not len(blank):
        return []
    return [
        Finding(
            f"{counted(len(blank), 'row')} of {split} with an empty text (the first: {rows.where(int(blank[0]))})",
            "kept, so that scores stay comparable with others on the same rows",
        )
    ]


def _of_copies(train: Rows) -> list[Finding]:
    found = []
    repeated = duplicates(train)
    if repeated:
        found.append(Finding(f"{repeated:,} of the {counted(len(train), 'row')} of train repeat an earlier text"))
    clashing = conflicts(train)
    if clashing:
        found.append(
            Finding(
                f"{counted(len(clashing), 'row')} of train with a text that stands under "
                f"{'another label' if train.kind == 'single' else 'other labels'} too"
                f" (the first: {train.where(clashing[0])})",
                "no model can get both right; correct the labels where you can",
            )
        )
    return found


def _of_overlap(train: Rows, split: str, rows: Rows) -> list[Finding]:
    shared = overlap(train, rows)
    if not shared.rows or shared.example is None:
        return []
    conflicting = f", {shared.conflicting:,} of them under another label" if shared.conflicting else ""
    return [
        Finding(
            f"{shared.rows:,} of the {counted(len(rows), 'row')} of {split} are exact copies of train{conflicting}"
            f" (the first: {rows.where(shared.example)})",
            f"the score on {split} is not wholly one on unseen texts",
        )
    ]


def counted(count: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 60 else name[:59] + "…" for name in names[:_SHOWN]]
    return ", ".join(map(repr, shown)) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
