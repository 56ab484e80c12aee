"""Encoded texts through a function of one padded batch, in passes of like length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from textclf.data.batching import Batch, collate, micro_batches
from textclf.data.encoding import Encoded


def logits_in_passes(
    forward: Callable[[Batch], np.ndarray],
    encoded: Encoded,
    *,
    labels: int,
    pad_id: int,
    max_tokens: int,
    max_padding: int,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits in the order of the input: (rows, labels) float32.

    forward: gives a batch's logits, (batch, labels). max_tokens: padded tokens of a pass; max_padding: those that are
    padding, one more pass being cheaper than these. on_progress: told how many texts are done.
    """
    logits_NC = np.zeros((len(encoded), labels), dtype=np.float32)
    passes = micro_batches(np.arange(len(encoded)), encoded.lengths, max_tokens=max_tokens, max_padding=max_padding)
    done = 0
    for rows in reversed(passes):  # longest first, so that a lack of memory shows at the start
        logits_NC[rows] = forward(collate(encoded, rows, pad_id=pad_id))
        done += len(rows)
        if on_progress is not None:
            on_progress(done)
    return logits_NC
