"""Rounded logits where the answer is clear, and exact ones where rounding might change it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from textclf.data.encoding import Encoded
from textclf.inference.runtimes import Runtime
from textclf.labels import LabelSet


class Rechecked:
    """A runtime that rounds, and an exact one for texts whose answer is less than `margin` from another.

    margin: in logits, as `LabelSet.margins`. Several threads may ask it at a time where they may ask both.
    """

    def __init__(self, rounded: Runtime, exact: Runtime, label_set: LabelSet, *, margin: float) -> None:
        self._rounded, self._exact = rounded, exact
        self._label_set, self._margin = label_set, margin

    def logits(self, encoded: Encoded, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Logits in the order of the input: (rows, num_labels) float32. on_progress: told how many texts are done."""
        logits_RC = self._rounded.logits(encoded, on_progress)
        rows_R = encoded.rows_of(np.flatnonzero(close(logits_RC, encoded, self._label_set, margin=self._margin)))
        if len(rows_R):
            logits_RC[rows_R] = self._exact.logits(encoded.take(rows_R))
        return logits_RC


def close(logits_RC: np.ndarray, encoded: Encoded, label_set: LabelSet, *, margin: float) -> np.ndarray:
    """Which texts' answers are less than `margin` from another: (texts,) bool."""
    with np.errstate(invalid="ignore"):  # NaN and infinity are close to nothing: whoever asked says what they are
        is_close: np.ndarray = label_set.margins(encoded.per_text(logits_RC)) < margin
    return is_close
