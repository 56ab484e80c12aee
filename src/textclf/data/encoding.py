"""Texts to token ids: one flat array with offsets. Needs only the `tokenizers` library.

Training, eval, predict and serve all encode here, so a text always becomes the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

CHUNK = 20_000
"""Texts tokenised at once: enough to keep every core busy, small in memory."""

CHARS_PER_TOKEN = 32
"""A prefix of this many characters per token nearly always holds all the tokens that are kept."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of many texts.

    ids: (tokens,) int32, all texts one after another, special tokens included.
    offsets: (rows + 1,) int64; text i is ids[offsets[i]:offsets[i + 1]].
    truncated: (rows,) bool, true where the text had more tokens than max_length.
    """

    ids: np.ndarray
    offsets: np.ndarray
    truncated: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text: (rows,) int64."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Encoded:
        """Some of the texts, in the order given: rows (n,) int64."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # Every token's place: where its text begins, and how far it is into it.
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Encoded(self.ids[places], offsets, self.truncated[rows])

    def row(self, index: int) -> np.ndarray:
        """Token ids of one text: (tokens,) int32."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


def encode(
    texts: Sequence[str | None],
    tokenizer: Tokenizer,
    *,
    max_length: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Encoded:
    """Tokenise texts, each cut to `max_length` tokens (special tokens included); None never cuts.

    Special-token literals in a text ("[SEP]", "<|endoftext|>") are read as plain characters. A text
    that has no token at all becomes the tokenizer's first special token, so every row has one or more.
    on_progress: called with the number of texts done so far.
    """
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    if max_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_length)
    special = _special_ids(tokenizer)
    filler = int(special[0]) if len(special) else 0
    in_template = tokenizer.num_special_tokens_to_add(False)
    parts: list[np.ndarray] = []
    lengths = np.zeros(len(texts) + 1, dtype=np.int64)
    truncated = np.zeros(len(texts), dtype=bool)
    for start in range(0, len(texts), CHUNK):
        chunk = [_clean(text) for text in texts[start : start + CHUNK]]
        prefixes = [_prefix(text, tokenizer, max_length) for text in chunk]
        encodings = tokenizer.encode_batch(prefixes)
        rows = [np.asarray(encoding.ids or [filler], dtype=np.int32) for encoding in encodings]
        sizes = np.array([len(ids) for ids in rows])
        ids = np.concatenate(rows)
        first = np.cumsum(sizes) - sizes
        specials = np.add.reduceat(np.isin(ids, special), first)
        for row in np.flatnonzero(specials > in_template):
            if encodings[row].ids:
                mask = np.asarray(encodings[row].special_tokens_mask, dtype=bool)
                _unread(ids[first[row] : first[row] + sizes[row]], mask, special, tokenizer)
        parts.append(ids)
        lengths[start + 1 : start + 1 + len(rows)] = sizes
        # What max_length cut off is kept aside as "overflowing".
        truncated[start : start + len(rows)] = [
            bool(encoding.overflowing) or len(prefix) < len(text)
            for encoding, prefix, text in zip(encodings, prefixes, chunk, strict=True)
        ]
        if on_progress is not None:
            on_progress(start + len(rows))
    return Encoded(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32), np.cumsum(lengths), truncated)


def _prefix(text: str, tokenizer: Tokenizer, max_length: int | None) -> str:
    """The start of a very long text that gives the same first `max_length` tokens as the whole text.

    Tokenising 10 MB to keep 512 tokens would take seconds. A prefix is enough when the kept tokens end
    before its last blank: what follows a blank does not change the tokens in front of it.
    """
    if max_length is None or len(text) <= max_length * CHARS_PER_TOKEN:
        return text
    size = max_length * CHARS_PER_TOKEN
    while size < len(text):
        prefix = text[:size]
        encoding: Encoding = tokenizer.encode(prefix)
        last_blank = max(prefix.rfind(blank) for blank in " \n\t")
        kept_until = max((end for _, end in encoding.offsets), default=0)
        if encoding.overflowing and kept_until < last_blank:
            return prefix
        size *= 8
    return text


def _clean(text: str | None) -> str:
    # A lone surrogate (from undecodable bytes) cannot cross into Rust; U+FFFD stands for it.
    return (text or "").encode("utf-8", "replace").decode("utf-8") if _has_surrogate(text) else (text or "")


def _has_surrogate(text: str | None) -> bool:
    return bool(text) and not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)  # type: ignore[union-attr]


def _special_ids(tokenizer: Tokenizer) -> np.ndarray:
    """Ids of the special tokens but the unknown token, which stands in ordinary texts."""
    added = tokenizer.get_added_tokens_decoder()
    unknown = _unknown_id(tokenizer)
    return np.array(
        sorted(index for index, token in added.items() if token.special and index != unknown), dtype=np.int32
    )


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    names = [getattr(tokenizer.model, "unk_token", None), "<unk>", "[UNK]"]  # a Unigram model does not say its own
    ids = (tokenizer.token_to_id(name) for name in names if name)
    return next((index for index in ids if index is not None), None)


def _unread(ids: np.ndarray, in_template: np.ndarray, special: np.ndarray, tokenizer: Tokenizer) -> None:
    """Make unknown, in place, the special tokens that the model read out of the text itself.

    SentencePiece vocabularies hold "<s>" and "[SEP]" as pieces, so that the literal is found there even
    though added tokens are split.
    """
    unknown = _unknown_id(tokenizer)
    read = np.isin(ids, special) & ~in_template
    ids[read] = unknown if unknown is not None else 0
