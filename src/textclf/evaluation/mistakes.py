"""The texts that a model answered wrongly: the surest mistakes, and examples of each confusion."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from textclf.data.rows import Rows
from textclf.labels import Label, LabelSet
from textclf.metrics import wrong_rows

SUREST = 300
"""Mistakes that are kept however they were confused: as many as a person may read."""
PAIRS = 50
EXAMPLES = 3
"""Of each of the PAIRS most frequent confusions this many are kept besides."""


@dataclass(frozen=True)
class Mistake:
    """A text that was answered wrongly.

    file, row: where it stands in the data. text_pair: the second text of a pair, else None. target, predicted: a label,
    or tuples of them where a text may have several.
    score: probability, 0 to 1, of the wrong label that was given, the highest of several; where none was given, 1 less
    that of the label that was missed.
    """

    file: str
    row: int
    text: str
    text_pair: str | None
    target: Label
    predicted: Label
    score: float


def find_mistakes(
    rows: Rows, targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet
) -> tuple[int, tuple[Mistake, ...]]:
    """How many rows were answered wrongly, and the mistakes that are worth a look, the surest first.

    targets: as of the label set; probs_NC: (rows, num_labels).
    """
    wrong_W, score_W = wrong_rows(targets, probs_NC, label_set)
    target_W, predicted_W = (label_set.labels(ids[wrong_W]) for ids in (targets, label_set.decide(probs_NC)))
    pairs = list(zip(target_W, predicted_W, strict=True))
    frequent = {pair for pair, _ in Counter(pairs).most_common(PAIRS)}
    seen: Counter[tuple[Label, Label]] = Counter()
    kept = []
    for rank, pair in enumerate(pairs):
        seen[pair] += 1
        if rank < SUREST or (pair in frequent and seen[pair] <= EXAMPLES):
            kept.append(rank)
    shown = rows.take(wrong_W[kept])
    seconds = shown.pair_column
    found = zip(
        shown.table.column("file").to_pylist(),
        shown.table.column("row").to_pylist(),
        shown.texts,
        [None] * len(kept) if seconds is None else seconds.to_pylist(),
        strict=True,
    )
    return len(wrong_W), tuple(
        Mistake(file, row, text or "", second, *pairs[rank], float(score_W[rank]))
        for rank, (file, row, text, second) in zip(kept, found, strict=True)
    )
