"""Encoded texts through a function of one padded batch, in passes of like length."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from textclf.data.batching import Batch, collate
from textclf.data.encoding import Encoded


def logits_in_passes(
    forward: Callable[[Batch], np.ndarray],
    encoded: Encoded,
    passes: Sequence[np.ndarray],
    *,
    labels: int,
    pad_id: int,
    at_once: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits in the order of the input: (rows, labels) float32.

    forward: gives a batch's logits, (batch, labels). passes: the rows of each, every row in one of them, the shortest
    texts first. at_once: passes that are computed at a time, each in a thread of its own. on_progress: told how many
    texts are done.
    """
    logits_NC = np.zeros((len(encoded), labels), dtype=np.float32)

    def compute(rows: np.ndarray) -> int:
        logits_NC[rows] = forward(collate(encoded, rows, pad_id=pad_id))
        return len(rows)

    done = 0
    for count in _finished(compute, passes[::-1], at_once):  # longest first: a lack of memory shows at the start
        done += count
        if on_progress is not None:
            on_progress(done)
    return logits_NC


def _finished(compute: Callable[[np.ndarray], int], passes: Sequence[np.ndarray], at_once: int) -> Iterator[int]:
    """What `compute` gives for each pass, as they end. Where one fails, none is begun any more."""
    # A program whose main thread has ended starts no more threads, while another of its threads may still ask.
    if at_once == 1 or not threading.main_thread().is_alive():
        yield from map(compute, passes)
        return
    from concurrent.futures import ThreadPoolExecutor, as_completed  # 7 ms, which one line does without

    with ThreadPoolExecutor(at_once) as threads:
        try:
            for future in as_completed([threads.submit(compute, rows) for rows in passes]):
                yield future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
