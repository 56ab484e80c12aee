"""Token ids to batches: buckets of like length under a token budget, dynamic padding.

The order of an epoch is a pure function of the lengths, the seed and the epoch: a resumed run goes on
with exactly the batches that an undisturbed one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from textclf.data.encoding import Encoded

BUCKET_STEPS = 50
"""Texts of this many steps are sorted by length together: enough for like lengths, small enough to stay random."""


@dataclass(frozen=True)
class Batch:
    """Texts for one forward pass, padded on the right to the longest.

    input_ids, attention_mask: (batch, tokens) int64, the mask 1 on real tokens.
    rows: (batch,) int64, positions in the encoded split.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def epoch_steps(lengths: np.ndarray, *, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of every optimizer step of one epoch, each (batch_size,) int64, the last perhaps shorter.

    Every row occurs once. Rows of one step have like lengths, the steps come in random order.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    pool = batch_size * BUCKET_STEPS
    # Equal pools: a short last pool would gather odd lengths into a few steps of its own.
    pools = np.array_split(order, max(1, round(len(order) / pool)))
    by_length = [rows[np.argsort(lengths[rows], kind="stable")] for rows in pools]
    ordered = np.concatenate(by_length)
    steps = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    return [steps[index] for index in rng.permutation(len(steps))]


def micro_batches(
    rows: np.ndarray, lengths: np.ndarray, *, max_tokens: int, max_rows: int | None = None
) -> list[np.ndarray]:
    """Cut rows into forward passes of at most `max_tokens` padded tokens and `max_rows` texts, one text at least."""
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    cuts: list[np.ndarray] = []
    start = 0
    for end in range(1, len(ordered) + 1):
        tokens = int(lengths[ordered[end - 1]]) * (end - start)
        if end - start > 1 and (tokens > max_tokens or (max_rows is not None and end - start > max_rows)):
            cuts.append(ordered[start : end - 1])
            start = end - 1
    if start < len(ordered):
        cuts.append(ordered[start:])
    return cuts


def scoring_batches(lengths: np.ndarray, *, max_tokens: int) -> list[np.ndarray]:
    """All rows once, longest first, so that a lack of memory shows at the start."""
    return micro_batches(np.arange(len(lengths)), lengths, max_tokens=max_tokens)[::-1]


def collate(encoded: Encoded, rows: np.ndarray, *, pad_id: int) -> Batch:
    """Pad the token ids of these rows to one length."""
    width = int(encoded.lengths[rows].max())
    input_ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for position, row in enumerate(rows):
        ids = encoded.row(row)
        input_ids[position, : len(ids)] = ids
        mask[position, : len(ids)] = 1
    return Batch(input_ids, mask, rows)


def padding_waste(steps: Iterable[np.ndarray], lengths: np.ndarray, *, max_tokens: int) -> float:
    """Share of the computed tokens that is padding, 0 to 1."""
    real = padded = 0
    for rows in steps:
        for cut in micro_batches(rows, lengths, max_tokens=max_tokens):
            real += int(lengths[cut].sum())
            padded += int(lengths[cut].max()) * len(cut)
    return 1 - real / padded if padded else 0.0
