"""Rows to rows: drop what cannot be learnt from, sample, and cut splits that are fair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textclf.data import mapped
from textclf.data.label_lists import LISTS
from textclf.data.rows import Rows, codes, label_names
from textclf.errors import DataError


def drop_unlabelled(rows: Rows) -> Rows:
    """The rows that have a label."""
    return rows.keep(_mask(pc.is_valid(rows.table.column("label"))))


def drop_empty(rows: Rows) -> Rows:
    """The rows whose text is more than white space."""
    return rows.keep(~empty(rows))


def drop_labels(rows: Rows, names: Collection[str]) -> Rows:
    """The rows without these labels: those of a single label are left out with it, of several the others stay.

    A row that loses all its labels is left out: it would teach that its text has none.
    """
    if rows.kind == "single":
        unwanted = pc.is_in(rows.table.column("label"), value_set=pa.array(sorted(names), pa.large_string()))
        return rows.keep(~_mask(unwanted))
    before = rows.labels
    after = [label and tuple(name for name in label if name not in names) for label in before]
    kept = [bool(label) or not had for label, had in zip(after, before, strict=True)]
    return rows.with_columns(label=pa.array(after, LISTS)).keep(np.array(kept, dtype=bool))


def gather_labels(rows: Rows, names: Collection[str], under: str) -> Rows:
    """All rows, these labels replaced by the one label `under`."""
    if rows.kind == "multi":
        renamed = [label and dict.fromkeys(under if name in names else name for name in label) for label in rows.labels]
        return rows.with_columns(label=pa.array([None if one is None else list(one) for one in renamed], LISTS))
    column = rows.table.column("label")
    chosen = pc.is_in(column, value_set=pa.array(sorted(names), pa.large_string()))
    return rows.with_columns(label=pc.if_else(chosen, pa.scalar(under, pa.large_string()), column))


def cap_labels(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    """At most `most` rows of each label, drawn at random, in their old order. Rows of one label each."""
    (labels_N,) = codes([rows], "label")
    shuffled = rng.permutation(len(rows))
    by_label = shuffled[np.argsort(labels_N[shuffled], kind="stable")]
    counts_C = np.bincount(labels_N)
    place_N = np.arange(len(rows)) - np.repeat(np.cumsum(counts_C) - counts_C, counts_C)
    return rows.take(np.sort(by_label[place_N < most]))


def fill_empty(rows: Rows) -> Rows:
    """All rows, with an empty text where the source has none."""
    missing = [name for name in rows.text_names if rows.table.column(name).null_count]

    def filled(piece: pa.Table, start: int) -> pa.Table:
        for name in missing:
            texts = pc.fill_null(piece.column(name), pa.scalar("", pa.large_string()))
            piece = piece.set_column(piece.schema.get_field_index(name), name, texts)
        return piece

    return replace(rows, table=mapped.changed(rows.table, filled)) if missing else rows


def empty(rows: Rows) -> np.ndarray:
    """Which texts, or either text of a pair, are missing or only white space: (rows,) bool."""
    return np.any([blank(rows.table.column(name)) for name in rows.text_names], axis=0)  # type: ignore[no-any-return]


def blank(texts: pa.ChunkedArray) -> np.ndarray:
    """Which texts are missing or only white space: (rows,) bool."""
    # Piece by piece, as what is trimmed is a copy.
    pieces = (piece.column("text") for _, piece in mapped.pieces(pa.table({"text": texts})))
    trimmed = (pc.utf8_trim_whitespace(pc.fill_null(piece, "")) for piece in pieces)
    return np.concatenate([_mask(pc.equal(pc.binary_length(piece), 0)) for piece in trimmed])


def label_counts(rows: Rows) -> Counter[str]:
    """How many rows each label has. No row's label is null."""
    counted = pc.value_counts(label_names(rows.table.column("label")).combine_chunks())
    return Counter(dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)))


def sample(rows: Rows, limit: int, rng: np.random.Generator) -> Rows:
    """At most `limit` rows, drawn at random (files are often grouped by label), in their old order."""
    if len(rows) <= limit:
        return rows
    return rows.take(np.sort(rng.choice(len(rows), size=limit, replace=False)))


def rows_wanted(size: float, total: int) -> int:
    """A share below 1 of `total`, at least one row; or the number of rows that `size` is. 0 stays 0."""
    if size == 0:
        return 0
    return max(1, round(size * total)) if size < 1 else int(size)


def cut(rows: Rows, wanted: int, rng: np.random.Generator, *, split: str) -> tuple[Rows, Rows]:
    """Cut `wanted` rows off: (what stays, what was cut), both in their old order.

    Stratified: labels share in the cut as they do in the whole. Rows with the same text stay
    together, and texts that stand under several labels stay behind, as does at least one text of
    every label; so the cut may fall a little short where texts repeat. Rows of several labels are drawn
    at random, a text of every label staying behind. Raises DataError when there are too few rows.
    """
    if rows.kind == "multi":
        return _cut_at_random(rows, wanted, rng, split=split)
    (texts_N,), (labels_N,) = codes([rows], "text"), codes([rows], "label")
    label_of_G, size_G = _groups(texts_N, labels_N)
    room_C = _room(label_of_G, size_G, num_labels=int(labels_N.max(initial=-1)) + 1)
    if wanted > room_C.sum():
        raise _too_few(rows, wanted, int(room_C.sum()), split)
    share_C = _allocate(wanted, room_C)
    cut_G = np.zeros(len(size_G), dtype=bool)
    by_label_G = np.argsort(label_of_G, kind="stable")
    first_C = np.searchsorted(label_of_G[by_label_G], np.arange(len(room_C) + 1))
    for label in np.flatnonzero(share_C):
        groups = rng.permutation(by_label_G[first_C[label] : first_C[label + 1]])
        cut_G[_fill(groups, size_G, int(share_C[label]))] = True
    cut_N = cut_G[texts_N]
    if not cut_N.any():
        raise _too_few(rows, wanted, 0, split)
    return rows.keep(~cut_N), rows.keep(cut_N)


def _cut_at_random(rows: Rows, wanted: int, rng: np.random.Generator, *, split: str) -> tuple[Rows, Rows]:
    (texts_N,) = codes([rows], "text")
    labels_of_G: list[set[str]] = [set() for _ in range(int(texts_N.max(initial=-1)) + 1)]
    for text, names in zip(texts_N.tolist(), rows.labels, strict=True):
        labels_of_G[text].update(names or ())
    size_G = np.bincount(texts_N, minlength=len(labels_of_G))
    left = Counter(name for names in labels_of_G for name in names)
    cut_G = np.zeros(len(size_G), dtype=bool)
    filled = 0
    for text in rng.permutation(len(size_G)).tolist():
        names = labels_of_G[text]
        if filled + size_G[text] <= wanted and all(left[name] > 1 for name in names):
            cut_G[text] = True
            left.subtract(names)
            filled += int(size_G[text])
    if filled == 0 or (filled < wanted and size_G.max() == 1):
        raise _too_few(rows, wanted, filled, split)
    cut_N = cut_G[texts_N]
    return rows.keep(~cut_N), rows.keep(cut_N)


def _groups(texts_N: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each different text: its label, -1 where it stands under several, and its number of rows. G texts."""
    num_texts = int(texts_N.max(initial=-1)) + 1
    size_G = np.bincount(texts_N, minlength=num_texts)
    lowest_G = np.full(num_texts, np.iinfo(np.int64).max)
    highest_G = np.full(num_texts, -1)
    np.minimum.at(lowest_G, texts_N, labels_N)
    np.maximum.at(highest_G, texts_N, labels_N)
    return np.where(lowest_G == highest_G, highest_G, -1), size_G


def _room(label_of_G: np.ndarray, size_G: np.ndarray, *, num_labels: int) -> np.ndarray:
    """How many rows of each label may be cut: all of its own texts but one, the most frequent: (labels,) int64."""
    own_G = label_of_G >= 0
    rows_C = np.bincount(label_of_G[own_G], weights=size_G[own_G], minlength=num_labels).astype(np.int64)
    largest_C = np.zeros(num_labels, dtype=np.int64)
    np.maximum.at(largest_C, label_of_G[own_G], size_G[own_G])
    return rows_C - largest_C


def _allocate(wanted: int, room_C: np.ndarray) -> np.ndarray:
    """`wanted` rows shared out in proportion to the room, by largest remainders; sums to `wanted`."""
    share_C, remainder_C = np.divmod(wanted * room_C, room_C.sum())
    by_remainder = np.argsort(-remainder_C, kind="stable")
    share_C[by_remainder[: wanted - share_C.sum()]] += 1
    return share_C


def _fill(groups: np.ndarray, size_G: np.ndarray, wanted: int) -> list[int]:
    """Groups, first come first served, whose rows add up to `wanted` or as near below it as this order gives."""
    taken, filled = [], 0
    for group in groups:
        if filled + size_G[group] <= wanted:
            taken.append(int(group))
            filled += int(size_G[group])
            if filled == wanted:
                break
    return taken


def _too_few(rows: Rows, wanted: int, room: int, split: str) -> DataError:
    flag = f"--{split}-size"
    cut_off = "; --test-size 0 goes without" if split == "test" else ""
    if room == 0:
        return DataError(
            f"too few rows to cut a {split} split: of the {len(rows):,} rows of train none can be spared, "
            "since every label keeps one text in train",
            hint=f"add rows, or bring a {split} file of your own{cut_off}; is the label column the right one?",
        )
    return DataError(
        f"too few rows to cut a {split} split of {wanted:,}: of the {len(rows):,} rows of train {room:,} can be spared",
        hint=f"ask for fewer with {flag} (a share such as 0.1, or a number of rows), or add rows{cut_off}",
    )


def _mask(values: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(values.to_numpy(), dtype=bool)
