"""Which tokens of a text, or of a pair of texts, are kept where there are too many: array arithmetic on their sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Kept:
    """What rows keep of a text: `head` tokens from `start` on, then its last `tail` ones; each (rows,) int64."""

    start: np.ndarray
    head: np.ndarray
    tail: np.ndarray


@dataclass(frozen=True)
class Pieces:
    """The rows that texts become.

    text: (rows,) int64, which text each row is of. first, second: what it keeps of both parts.
    cut: (rows,) bool, whether the text had more tokens. windows: a text may have several rows.
    """

    text: np.ndarray
    first: Kept
    second: Kept
    cut: np.ndarray
    windows: bool


def pieces(
    size_N: np.ndarray, pair_size_N: np.ndarray, limit: int | None, *, overflow: str, keep_pairs: bool
) -> Pieces:
    """What is kept of texts of these sizes, (texts,) int64, in rows of at most `limit` tokens; 0 for no second text.

    keep_pairs: second texts are kept whole where they leave room for a token of the first; else they lose their end,
        and the first text keeps up to a quarter of the tokens.
    """
    if limit is None:
        limit = int((size_N + pair_size_N).max(initial=0))
    if overflow == "window":
        return _windows(size_N, pair_size_N, limit, keep_pairs=keep_pairs)
    kept_N, pair_kept_N = _shares(size_N, pair_size_N, limit, keep_pairs=keep_pairs)
    zero_N = np.zeros_like(size_N)

    def part(kept_N: np.ndarray, size_N: np.ndarray) -> Kept:
        tail_N = np.where(kept_N < size_N, kept_N - kept_N // 4, 0) if overflow == "head-tail" else zero_N
        return Kept(zero_N, kept_N - tail_N, tail_N)

    cut_N = (kept_N < size_N) | (pair_kept_N < pair_size_N)
    return Pieces(np.arange(len(size_N)), part(kept_N, size_N), part(pair_kept_N, pair_size_N), cut_N, windows=False)


def _shares(
    size_N: np.ndarray, pair_size_N: np.ndarray, limit: int, *, keep_pairs: bool
) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of each part are kept. As `tokenizers` cuts the longest first: the longer part down to the
    length of the shorter, then both to half."""
    if keep_pairs:
        pair_kept_N = _kept_pairs(size_N, pair_size_N, limit)
        return np.minimum(size_N, limit - pair_kept_N), pair_kept_N
    short_N, long_N = np.minimum(size_N, pair_size_N), np.maximum(size_N, pair_size_N)
    over_N = size_N + pair_size_N > limit
    both_N = over_N & (2 * short_N > limit)
    short_kept_N = np.where(both_N, limit // 2, short_N)
    long_kept_N = np.where(over_N, limit - short_kept_N, long_N)
    swapped_N = size_N > pair_size_N
    return np.where(swapped_N, long_kept_N, short_kept_N), np.where(swapped_N, short_kept_N, long_kept_N)


def _kept_pairs(size_N: np.ndarray, pair_size_N: np.ndarray, limit: int) -> np.ndarray:
    fits_N = pair_size_N + np.minimum(size_N, 1) <= limit
    return np.where(fits_N, pair_size_N, np.minimum(pair_size_N, limit - np.minimum(size_N, limit // 4)))


def _windows(size_N: np.ndarray, pair_size_N: np.ndarray, limit: int, *, keep_pairs: bool) -> Pieces:
    """Rows that together show the whole of the longer part, beside the start of the other."""
    over_N = size_N + pair_size_N > limit
    moves_N = np.full(len(size_N), True) if keep_pairs else size_N >= pair_size_N  # the first part, else the second
    moving_N, still_N = np.where(moves_N, size_N, pair_size_N), np.where(moves_N, pair_size_N, size_N)
    kept_N = _kept_pairs(size_N, pair_size_N, limit) if keep_pairs else np.minimum(still_N, limit // 2)
    kept_N = np.where(over_N, kept_N, still_N)
    room_N = np.where(over_N, np.maximum(limit - kept_N, 1), moving_N)
    step_N = np.maximum(room_N - room_N // 4, 1)
    count_N = 1 + np.where(over_N, -(-np.maximum(moving_N - room_N, 0) // step_N), 0)
    text_R = np.repeat(np.arange(len(size_N)), count_N)
    number_R = np.arange(len(text_R)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
    # The last one ends with the text, and so is as long as the others.
    start_R = np.minimum(number_R * step_N[text_R], np.maximum(moving_N - room_N, 0)[text_R])
    size_R = np.minimum(moving_N, room_N)[text_R]
    moves_R, zero_R = moves_N[text_R], np.zeros_like(text_R)

    def part(moving_R: np.ndarray) -> Kept:
        return Kept(np.where(moving_R, start_R, 0), np.where(moving_R, size_R, kept_N[text_R]), zero_R)

    return Pieces(text_R, part(moves_R), part(~moves_R), over_N[text_R], windows=True)
