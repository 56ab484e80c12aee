"""Token ids to batches: padded to one length, or packed one text after another. A pure function of seed and epoch.

A resumed run goes on with exactly the batches that an undisturbed one would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from textclf.data.encoding import Encoded

BUCKET_STEPS = 8
"""Texts of this many steps are sorted by length together. More would save padding, but steps whose texts are all
alike teach less: see docs/explanation/batching.md."""

ROW_TOKENS = 64
"""Packed rows are a multiple of this many tokens wide: few shapes, so that kernels made for one are used again."""


@dataclass(frozen=True)
class Batch:
    """Texts for one forward pass, padded on the right to the longest.

    input_ids, attention_mask: (batch, tokens) int64, the mask 1 on real tokens.
    rows: (batch,) int64, positions in the encoded split.
    token_type_ids: (batch, tokens) int64, of pairs of texts; None for single texts.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    rows: np.ndarray
    token_type_ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Block:
    """Packed rows of one width that lie one after another: `rows` times `width` tokens from `start` on."""

    start: int
    rows: int
    width: int


@dataclass(frozen=True)
class Packed:
    """Texts for one forward pass, laid side by side in rows that are nearly full.

    input_ids: (tokens,) int64, row after row. position_ids: (tokens,) int64, counted from 0 in each text.
    text: (tokens,) int64, which text of the batch a token belongs to, -1 for padding. No token may attend to
    one of another text. starts, lengths: (batch,) int64, where each text lies. blocks: the rows by width.
    rows: (batch,) int64, positions in the encoded split. token_type_ids: (tokens,) int64, of pairs; else None.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    text: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    blocks: tuple[Block, ...]
    rows: np.ndarray
    token_type_ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)


def epoch_steps(
    lengths: np.ndarray, *, batch_size: int, seed: int, epoch: int, by_length: bool = True
) -> list[np.ndarray]:
    """The rows of every optimizer step of one epoch, each (batch_size,) int64, the last perhaps shorter.

    Every row occurs once, in random order. by_length: rows of one step have like lengths, which saves padding.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    if by_length:
        pool = batch_size * BUCKET_STEPS
        # Equal pools: a short last pool would gather odd lengths into a few steps of its own.
        pools = np.array_split(order, max(1, round(len(order) / pool)))
        order = np.concatenate([rows[np.argsort(lengths[rows], kind="stable")] for rows in pools])
    steps = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [steps[index] for index in rng.permutation(len(steps))]


def micro_batches(
    rows: np.ndarray,
    lengths: np.ndarray,
    *,
    max_tokens: int,
    max_rows: int | None = None,
    max_padding: int | None = None,
) -> list[np.ndarray]:
    """Cut rows into padded forward passes of like lengths, one text at least in each.

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


def scoring_batches(rows: np.ndarray, lengths: np.ndarray, *, max_tokens: int) -> list[np.ndarray]:
    """These rows once, longest first, so that a lack of memory shows at the start."""
    return micro_batches(rows, lengths, max_tokens=max_tokens)[::-1]


def collate(encoded: Encoded, rows: np.ndarray, *, pad_id: int) -> Batch:
    """Pad the token ids of these rows to one length."""
    width = int(encoded.lengths[rows].max())
    input_ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for position, row in enumerate(rows):
        ids = encoded.row(row)
        input_ids[position, : len(ids)] = ids
        mask[position, : len(ids)] = 1
    types = None
    if encoded.second is not None:
        types = (np.arange(width) >= encoded.second[rows][:, np.newaxis]) * mask  # 0 on padding, as tokenizers pad
    return Batch(input_ids, mask, rows, types)


def packed_batches(
    rows: np.ndarray, lengths: np.ndarray, *, max_tokens: int, max_rows: int | None = None
) -> list[np.ndarray]:
    """Cut rows into packed forward passes of about equally many tokens, one text at least in each."""
    cuts: list[list[int]] = []
    tokens = 0
    passes = max(1, -(-int(lengths[rows].sum()) // max_tokens))
    share = min(max_tokens, -(-int(lengths[rows].sum()) // passes))
    for row, length in zip(rows.tolist(), lengths[rows].tolist(), strict=True):
        if not cuts or tokens + length > share + ROW_TOKENS or (max_rows is not None and len(cuts[-1]) >= max_rows):
            cuts.append([])
            tokens = 0
        cuts[-1].append(row)
        tokens += length
    return [np.array(cut, dtype=np.int64) for cut in cuts]


def pack(encoded: Encoded, rows: np.ndarray, *, pad_id: int) -> Packed:
    """Lay the token ids of these rows side by side: long texts open rows, shorter ones fill the gaps (best fit)."""
    lengths = encoded.lengths[rows]
    widths: list[int] = []
    free: list[int] = []
    row_of = np.zeros(len(rows), dtype=np.int64)
    offset_in_row = np.zeros(len(rows), dtype=np.int64)
    for text in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[text])
        fitting = [(left, place) for place, left in enumerate(free) if left >= length]
        if fitting:
            place = min(fitting)[1]
        else:
            place = len(widths)
            widths.append(-(-length // ROW_TOKENS) * ROW_TOKENS)
            free.append(widths[place])
        row_of[text], offset_in_row[text] = place, widths[place] - free[place]
        free[place] -= length
    by_width = np.argsort(widths, kind="stable")
    ordered = np.array(widths)[by_width]
    row_starts = np.zeros(len(widths), dtype=np.int64)
    row_starts[by_width] = np.cumsum(ordered) - ordered
    starts = row_starts[row_of] + offset_in_row
    tokens = int(ordered.sum())
    input_ids = np.full(tokens, pad_id, dtype=np.int64)
    position_ids = np.zeros(tokens, dtype=np.int64)
    text_of = np.full(tokens, -1, dtype=np.int64)
    for text, (row, start, length) in enumerate(zip(rows, starts.tolist(), lengths.tolist(), strict=True)):
        input_ids[start : start + length] = encoded.row(row)
        position_ids[start : start + length] = np.arange(length)
        text_of[start : start + length] = text
    blocks, start = [], 0
    for width, count in zip(*np.unique(ordered, return_counts=True), strict=True):
        blocks.append(Block(start, int(count), int(width)))
        start += int(width * count)
    types = None
    if encoded.second is not None:
        types = ((text_of >= 0) & (position_ids >= encoded.second[rows][text_of])).astype(np.int64)
    return Packed(input_ids, position_ids, text_of, starts, lengths, tuple(blocks), rows, types)


def real_tokens(batch: Batch | Packed) -> int:
    """Tokens of a forward pass that are no padding."""
    return int(batch.lengths.sum() if isinstance(batch, Packed) else batch.attention_mask.sum())
