"""Token ids to batches: buckets of like length under a token budget, dynamic padding.

The order of an epoch is a pure function of the lengths, the seed and the epoch: a resumed run goes on
with exactly the batches that an undisturbed one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from textclf.data.encoding import Encoded

BUCKET_STEPS = 8
"""Texts of this many steps are sorted by length together. More would save padding, but steps whose texts are all
alike teach less: see docs/explanation/batching.md."""


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
    rows: np.ndarray,
    lengths: np.ndarray,
    *,
    max_tokens: int,
    max_rows: int | None = None,
    max_padding: int | None = None,
) -> list[np.ndarray]:
    """Cut rows into forward passes of like lengths, one text at least in each.

    max_tokens: padded tokens of a pass. max_rows: texts of a pass. max_padding: tokens of a pass that are
    padding; where one more pass costs little, it is cheaper than these.
    """
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    cuts: list[np.ndarray] = []
    start = real = 0
    for end, length in enumerate(lengths[ordered].tolist()):
        padded = length * (end - start + 1)
        over = (
            padded > max_tokens
            or (max_rows is not None and end - start >= max_rows)
            or (max_padding is not None and padded - real - length > max_padding)
        )
        if over and end > start:
            cuts.append(ordered[start:end])
            start, real = end, 0
        real += length
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


def padding_waste(passes: Iterable[np.ndarray], lengths: np.ndarray) -> float:
    """Share of the tokens computed in these forward passes that is padding, 0 to 1."""
    real = padded = 0
    for rows in passes:
        real += int(lengths[rows].sum())
        padded += int(lengths[rows].max()) * len(rows)
    return 1 - real / padded if padded else 0.0
