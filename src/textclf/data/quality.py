"""What a person should know of the data before training. Rows are named, texts never shown: they may be hateful."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from textclf.data.anomalies import character_lengths, damaged, not_text, very_long
from textclf.data.cleaning import empty
from textclf.data.copies import SIMILAR, Copies
from textclf.data.rows import Rows, codes
from textclf.data.words import ranges

_SHOWN = 5
_LOPSIDED = 0.9
"""Share of one label above which always answering it already looks good."""
_SHIFTED = 0.75
"""ROC-AUC from which two splits are called different. Random halves of one set give 0.5, at most about 0.55."""


@dataclass(frozen=True)
class Finding:
    """Something about the data that a person should know, and what could be done about it.

    kind: what it is, in a word that stays as it is. split: where, None for several. rows: how many rows it is about, 0
    where it is about labels. example: `file, row N` of one of them.
    """

    kind: str
    message: str
    hint: str | None = None
    split: str | None = None
    rows: int = 0
    example: str | None = None


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
    """Rows of a split whose text is in train too: (rows,) bool each.

    conflicting: those of them that train has under other labels only.
    """

    shared: np.ndarray
    conflicting: np.ndarray


@dataclass(frozen=True)
class Lengths:
    """How long the texts are, in characters or in tokens: percentiles of `texts` texts."""

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


def percentiles(lengths_N: np.ndarray) -> Lengths:
    """Percentiles of the lengths (texts,); each is a length that occurs, so cutting there keeps that share whole."""
    if not len(lengths_N):
        return Lengths(0, 0, 0, 0, 0, 0)
    p50, p90, p95, p99 = np.percentile(lengths_N, [50, 90, 95, 99], method="higher").astype(int).tolist()
    return Lengths(len(lengths_N), p50, p90, p95, p99, int(lengths_N.max()))


def share_cut(lengths_N: np.ndarray, max_length: int) -> float:
    """Share of the texts, 0 to 1, that are longer than `max_length` and would lose their end."""
    return float((lengths_N > max_length).mean()) if len(lengths_N) else 0.0


def repeats(texts_N: np.ndarray) -> np.ndarray:
    """Which rows have the text of an earlier row, by the numbers of the texts: (rows,) bool."""
    repeated_N = np.ones(len(texts_N), dtype=bool)
    repeated_N[np.unique(texts_N, return_index=True)[1]] = False
    return repeated_N


def conflicts(texts_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Which rows have a text that stands under another label too: (rows,) bool."""
    if not len(texts_N):
        return np.zeros(0, dtype=bool)
    lowest_G = np.full(texts_N.max() + 1, np.iinfo(np.int64).max)
    highest_G = np.full(texts_N.max() + 1, -1)
    np.minimum.at(lowest_G, texts_N, labels_N)
    np.maximum.at(highest_G, texts_N, labels_N)
    return (lowest_G != highest_G)[texts_N]  # type: ignore[no-any-return]


def overlap(
    train: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], near: np.ndarray | None = None
) -> Overlap:
    """Which rows of another split have a copy in train. train, other: numbers of texts and of labels, (rows,) each.

    near: pairs of numbers of texts that count as copies of each other; None: a text is a copy of its equals.
    """
    (train_texts_N, train_labels_N), (texts_N, labels_N) = train, other
    num_texts = max(int(one.max(initial=0)) for one in (train_texts_N, texts_N, *(() if near is None else (near,)))) + 1
    num_labels = max(train_labels_N.max(initial=0), labels_N.max(initial=0)) + 1
    in_train = np.zeros(num_texts, dtype=bool)
    in_train[train_texts_N] = True
    used = np.zeros(num_texts, dtype=bool)
    if near is None:
        edges = np.stack([texts_N, texts_N], axis=1)
        row_E = np.arange(len(texts_N))
    else:
        both = np.concatenate([near, near[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        begin_N, end_N = (np.searchsorted(both[:, 0], texts_N, side=side) for side in ("left", "right"))
        edges = both[ranges(begin_N, end_N - begin_N)]
        row_E = np.repeat(np.arange(len(texts_N)), end_N - begin_N)
    met = in_train[edges[:, 1]]
    partner_E, row_E = edges[met, 1], row_E[met]
    used[partner_E] = True
    wanted = used[train_texts_N]
    known = np.unique(train_texts_N[wanted] * num_labels + train_labels_N[wanted])
    agrees_E = np.isin(partner_E * num_labels + labels_N[row_E], known)
    shared_N = np.zeros(len(texts_N), dtype=bool)
    shared_N[row_E] = True
    agrees_N = np.zeros(len(texts_N), dtype=bool)
    agrees_N[row_E[agrees_E]] = True
    return Overlap(shared_N, shared_N & ~agrees_N)


def lookalikes(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Groups of label names that differ by case or outer blanks only."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.strip().casefold()].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def findings(
    splits: Mapping[str, Rows],
    counts: Mapping[str, Mapping[str, int]],
    copies: Copies,
    shifts: Mapping[str, float],
) -> list[Finding]:
    """All that these measures have to say about train, validation and test; nothing where all is well.

    counts: split -> label -> rows; empty where the labels of rows are not what is learnt. shifts: split -> ROC-AUC of
    telling it from train.
    """
    train = splits["train"]
    labels = dict(zip(splits, codes(list(splits.values()), "label"), strict=True))
    # Near copies of a question may have their answers at other places.
    of_near = labels if counts else {split: np.zeros(len(rows), dtype=np.int64) for split, rows in splits.items()}
    return [
        *(_of_labels(counts, train) if counts else []),
        *(finding for split, rows in splits.items() for finding in _of_texts(split, rows)),
        *_of_copies(train, copies, labels["train"], of_near["train"]),
        *(
            finding
            for split, rows in splits.items()
            if split != "train"
            for finding in _of_overlap(split, rows, copies, labels, of_near)
        ),
        *_of_shift(shifts),
    ]


def _of_labels(counts: Mapping[str, Mapping[str, int]], train: Rows) -> list[Finding]:
    found = []
    for group in lookalikes(list(counts["train"])):
        found.append(
            Finding(
                "label names",
                f"labels that differ only by case or outer blanks: {', '.join(map(repr, group))}",
                "if they mean the same, write them alike in the file",
            )
        )
    state = balance(counts["train"], len(train))
    if train.kind == "single" and state.majority_share >= _LOPSIDED:
        found.append(
            Finding(
                "balance",
                f"{state.majority_share:.1%} of train has one label; always answering it scores that accuracy",
                "judge by macro_f1 rather than accuracy (--set train.metric=macro_f1)",
                "train",
            )
        )
    lone = [name for name, count in counts["train"].items() if count == 1]
    if lone:
        found.append(
            Finding(
                "rare labels",
                f"{counted(len(lone), 'label')} with only one row in train: {_listed(lone)}",
                "drop such labels with --min-label-count 2 (or more), or add rows",
                "train",
                len(lone),
            )
        )
    for split, of_split in counts.items():
        # A label of one row cannot be in two splits, which is said already.
        absent = [name for name, count in of_split.items() if not count and counts["train"][name] != 1]
        if absent:
            message = f"{counted(len(absent), 'label')} without a row in {split}: {_listed(absent)}"
            found.append(Finding("absent labels", message, None, split))
    return found


def _of_texts(split: str, rows: Rows) -> list[Finding]:
    """What is odd about texts by themselves."""
    lengths_N = character_lengths(rows)
    longest = int(lengths_N.max(initial=0))
    damage = damaged(rows)
    kinds = ", ".join(f"{int(hit_N.sum()):,} with {kind}" for kind, hit_N in damage.items() if hit_N.any())
    return [
        *_of_rows(
            "empty texts", split, rows, empty(rows), "with an empty text",
            "kept, so that scores stay comparable with others on the same rows",
        ),
        *_of_rows(
            "damaged texts", split, rows, np.any(list(damage.values()), axis=0),
            f"that an encoding has damaged: {kinds}",
            "save the file as UTF-8 from where it came; what is lost cannot be guessed here",
        ),
        *_of_rows(
            "no text", split, rows, not_text(rows), "without a word: figures, punctuation or one endless string",
            "is the text column the right one? --text-column NAME chooses another",
        ),
        *_of_rows(
            "long texts", split, rows, very_long(lengths_N),
            f"far longer than the rest, up to {longest:,} characters",
            "finetune --overflow head-tail or window reads more of them than their start",
        ),
    ]  # fmt: skip


def _of_rows(kind: str, split: str, rows: Rows, hit_N: np.ndarray, what: str, hint: str | None) -> list[Finding]:
    """The finding about the rows that are hit, if any; the first of them is the example."""
    if not hit_N.any():
        return []
    first = rows.where(int(np.flatnonzero(hit_N)[0]))
    message = f"{counted(int(hit_N.sum()), 'row')} of {split} {what} (the first: {first})"
    return [Finding(kind, message, hint, split, int(hit_N.sum()), first)]


def _of_copies(train: Rows, copies: Copies, labels_N: np.ndarray, of_near_N: np.ndarray) -> list[Finding]:
    """Copies within train: exact ones, then what else is one, each row in one kind only."""
    exact_N, loose_N = copies.exact["train"], copies.loose["train"]
    found = []
    repeated_N = repeats(exact_N)
    if repeated_N.any():
        message = f"{int(repeated_N.sum()):,} of the {counted(len(train), 'row')} of train repeat an earlier text"
        first = train.where(int(np.flatnonzero(repeated_N)[0]))
        found.append(Finding("repeats", message, None, "train", int(repeated_N.sum()), first))
    found += _of_rows(
        "loose repeats", "train", train, repeats(loose_N) & ~repeated_N,
        "that repeat an earlier text but for case, blanks and punctuation", None,
    )  # fmt: skip
    clashing_N = conflicts(exact_N, labels_N)
    others = "another label" if train.kind == "single" else "other labels"
    review = "no model can get both right; textclf audit lists them, --corrections FILE applies your review"
    found += _of_rows(
        "conflicts", "train", train, clashing_N, f"with a text that stands under {others} too", review
    )  # fmt: skip
    loosely_N = conflicts(loose_N, labels_N)
    found += _of_rows(
        "loose conflicts", "train", train, loosely_N & ~clashing_N,
        f"with a text that stands under {others} too, but for case, blanks and punctuation", review,
    )  # fmt: skip
    if copies.near is None:
        return found
    # A row's own text is no partner of itself, so train may stand on both sides.
    pairs = overlap((loose_N, of_near_N), (loose_N, of_near_N), copies.near)
    unlike = (
        f", {int(pairs.conflicting.sum()):,} of them of texts under {others} only" if pairs.conflicting.any() else ""
    )
    found += _of_rows(
        "near copies", "train", train, pairs.shared, f"that are near copies of others{unlike}",
        review if unlike else None,
    )  # fmt: skip
    return found


def _of_overlap(
    split: str, rows: Rows, copies: Copies, labels: Mapping[str, np.ndarray], of_near: Mapping[str, np.ndarray]
) -> list[Finding]:
    """Copies of train in another split: exact ones, then what else is one, each row in one kind only."""
    found = []
    seen_N = np.zeros(len(rows), dtype=bool)
    for kind, what, numbers, near in (
        ("leak", "are exact copies of train", copies.exact, None),
        ("loose leak", "are copies of train but for case, blanks and punctuation", copies.loose, None),
        ("near leak", f"are near copies of train ({SIMILAR:.0%} alike)", copies.loose, copies.near),
    ):
        if kind == "near leak" and near is None:
            continue
        named = labels if near is None else of_near
        copied = overlap((numbers["train"], named["train"]), (numbers[split], named[split]), near)
        shared_N, clashing_N = copied.shared & ~seen_N, copied.conflicting & ~seen_N
        if not shared_N.any():
            continue
        more = "more " if seen_N.any() else ""
        seen_N |= shared_N
        first = rows.where(int(np.flatnonzero(clashing_N if clashing_N.any() else shared_N)[0]))
        clash = f", {int(clashing_N.sum()):,} of them under another label" if clashing_N.any() else ""
        message = f"{int(shared_N.sum()):,} {more}of the {counted(len(rows), 'row')} of {split} {what}{clash}"
        hint = (
            f"the score on {split} is not wholly one on unseen texts; --drop-leaks train or test drops one of the two"
        )
        found.append(Finding(kind, f"{message} (the first: {first})", hint, split, int(shared_N.sum()), first))
    return found


def _of_shift(shifts: Mapping[str, float]) -> list[Finding]:
    return [
        Finding(
            "shift",
            f"train and {split} can be told apart by their texts: ROC-AUC {area:.2f}, where 0.5 is chance",
            f"the score on {split} is one on other texts than those learnt from; is it like those to come?",
            split,
        )
        for split, area in shifts.items()
        if area >= _SHIFTED
    ]


def counted(count: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 60 else name[:59] + "…" for name in names[:_SHOWN]]
    return ", ".join(map(repr, shown)) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
