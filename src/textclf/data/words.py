"""Texts to token ids word by word: each different word of a chunk is tokenised once, the rest is array arithmetic.

Most words of a text have been seen in the text before. Where a tokenizer treats every word by itself, and that can
be told from how it is built, this gives the same tokens as reading each text through, several times faster.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import models, normalizers, pre_tokenizers

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

REMEMBERED = 100_000
"""Words whose tokens are kept from chunk to chunk (about 20 MB); at more, they are gathered anew."""

_SPACE = ord(" ")
_DELETE = 0x7F


def separable(tokenizer: Tokenizer) -> bool:
    """Whether a text has the same tokens when it is cut before every space that follows a printable ASCII character.

    True of BERT's words, and of byte-level BPE as GPT-2 cuts it (`\\s+(?!\\S)` and the other alternatives have a
    space in first place only, so each begins anew there). False whenever that is not sure.
    """
    normalizer, words, model = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model
    # What was added to the vocabulary is looked for in the whole text, around the cuts too.
    for token in tokenizer.get_added_tokens_decoder().values():
        plain = not (token.lstrip or token.rstrip or token.single_word)
        if not token.special and not (plain and " " not in token.content.lstrip(" ")):
            return False
    if isinstance(model, models.WordPiece):
        return isinstance(normalizer, normalizers.BertNormalizer) and isinstance(words, pre_tokenizers.BertPreTokenizer)
    if isinstance(model, models.BPE):
        return (
            (normalizer is None or isinstance(normalizer, normalizers.NFC))
            and isinstance(words, pre_tokenizers.ByteLevel)
            and bool(words.use_regex)
            and not model.dropout
        )
    return False


class Words:
    """The tokens of words, remembered from one chunk of texts to the next. The tokenizer is a separable one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def tokens(self, texts: pa.LargeStringArray, *, limit: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first `limit` tokens of each text without special tokens.

        Gives (tokens,) int64 ids, all texts one after another, (rows,) int64 how many each has, and (rows,) bool
        whether it had more than that. No text is null.
        """
        words, first_N = _split(texts)
        encoded = words.dictionary_encode()
        # W: all words, U: different ones. Not by to_numpy, which imports pandas.
        word_W = np.from_dlpack(encoded.indices).astype(np.int64)
        ids_of_U = self._look_up(encoded.dictionary.to_pylist())
        size_U = np.fromiter(map(len, ids_of_U), dtype=np.int64, count=len(ids_of_U))
        ids = np.fromiter(itertools.chain.from_iterable(ids_of_U), dtype=np.int64, count=int(size_U.sum()))
        start_U = np.cumsum(size_U) - size_U

        size_W = size_U[word_W]
        before_W = np.concatenate([[0], np.cumsum(size_W)])
        begin_N = before_W[first_N]
        size_N = np.diff(begin_N)
        kept_N = size_N
        if limit is not None and size_N.max(initial=0) > limit:
            kept_N = np.minimum(size_N, limit)
            position_W = before_W[:-1] - np.repeat(begin_N[:-1], np.diff(first_N))
            size_W = np.clip(limit - position_W, 0, size_W)
        return ids[ranges(start_U[word_W], size_W)], kept_N, size_N > kept_N

    def _look_up(self, words: list[str]) -> list[list[int]]:
        new = [word for word in words if word not in self._known]
        if len(self._known) + len(new) > REMEMBERED:
            self._known.clear()
            new = words
        encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        self._known.update(zip(new, (encoding.ids for encoding in encodings), strict=True))
        return [self._known[word] for word in words]


def ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """start, start + 1, ... for each range, one after another: (sum of sizes,) int64."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(ends[-1] if len(ends) else 0)


def _split(texts: pa.LargeStringArray) -> tuple[pa.LargeStringArray, np.ndarray]:
    """The words of all texts, each with the blanks before it, and (rows + 1,) int64 where each text's begin.

    Nothing is copied.
    """
    import pyarrow as pa

    _, offsets, data = texts.buffers()
    offsets_N = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    chars = np.frombuffer(data if data is not None else b"", dtype=np.uint8)[offsets_N[0] : offsets_N[-1]]
    offsets_N = offsets_N - offsets_N[0]
    cut = np.zeros(len(chars) + 1, dtype=bool)
    cut[1:-1] = (chars[1:] == _SPACE) & (chars[:-1] > _SPACE) & (chars[:-1] < _DELETE)
    cut[offsets_N] = True
    bounds = np.flatnonzero(cut)
    words = pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(chars))
    return words, np.searchsorted(bounds, offsets_N)
