"""Texts to token ids: one flat array with offsets. Needs only the `tokenizers` library.

Training, eval, predict and serve all encode here, so a text always becomes the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from textclf.data.prompt import Prompt
from textclf.data.words import Words, separable

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

Texts: TypeAlias = "Sequence[str | None] | pa.ChunkedArray"

CHUNK = 10_000
"""Texts tokenised at once, at most: enough to keep every core busy, small in memory."""
CHUNK_CHARS = 1 << 24
"""Characters (of an arrow column: bytes) tokenised at once, unless one text alone has more."""
FEW = 256
"""Fewer texts than this are not worth taking apart into words."""

CHARS_PER_TOKEN = 32
"""A prefix of this many characters per token nearly always holds all the tokens that are kept."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of many texts, in memory or memory-mapped.

    ids: (tokens,) uint16, or uint32 where the vocabulary needs it; all texts one after another, special tokens
        included. Few operators of torch take these types: widen what you gather, as `batching.collate` does.
    offsets: (rows + 1,) int64; text i is ids[offsets[i]:offsets[i + 1]].
    truncated: (rows,) bool, true where the text had more tokens than max_length.
    """

    ids: np.ndarray
    offsets: np.ndarray
    truncated: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
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
        """Token ids of one text: (tokens,), of the type of `ids`."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Chunk:
    """Encoded rows that come next: ids (tokens,), lengths (rows,) int64, truncated (rows,) bool."""

    ids: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray


def encode(
    texts: Texts,
    tokenizer: Tokenizer,
    *,
    max_length: int | None = None,
    prompt: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Encoded:
    """Tokenise texts, each cut to `max_length` tokens (special tokens included); None never cuts.

    texts: a sequence, or a column of strings in arrow, which spares a million Python strings.
    Special-token literals in a text ("[SEP]", "<|endoftext|>") are read as plain characters. A text
    that has no token at all becomes the tokenizer's first special token, so every row has one or more.
    prompt: a template with `{text}`, put around every text. Of a text that is cut, what comes after it stays.
    on_progress: called with the number of texts done so far.

    The tokenizer's threads take every core that the process may run on; TOKENIZERS_PARALLELISM=false keeps it to one.
    """
    chunks = encode_chunks(texts, tokenizer, max_length=max_length, prompt=prompt, on_progress=on_progress)
    return _gathered(chunks, id_type(tokenizer))


def encode_chunks(
    texts: Texts,
    tokenizer: Tokenizer,
    *,
    max_length: int | None = None,
    prompt: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[Chunk]:
    """What `encode` gives, chunk by chunk, so that memory does not grow with the number of texts."""
    settle(tokenizer)
    frame = _Frame(tokenizer)
    limit = None if max_length is None else max(0, max_length - frame.size)
    around = Prompt.of(prompt)
    ending = around.ending(tokenizer) if around else []
    words = Words(tokenizer) if len(texts) >= FEW and separable(tokenizer) else None
    dtype = id_type(tokenizer)
    done = 0
    for part in _parts(texts):
        if around:
            part = around.around(part)
        ids, sizes, truncated = words.tokens(_in_arrow(part), limit=limit) if words else _whole(part, tokenizer, limit)
        if ending and truncated.any():
            ids = _end_in(np.array(ids), np.cumsum(sizes)[truncated], ending[-(limit or 0) :])
        yield Chunk(*frame.around(ids, sizes, dtype), truncated)
        done += len(part)
        if on_progress is not None:
            on_progress(done)


def cut(encoded: Encoded, tokenizer: Tokenizer, max_length: int, *, prompt: str | None = None) -> Encoded:
    """Rows as they would be had they been encoded with this smaller `max_length`."""
    if max_length >= encoded.lengths.max(initial=0):
        return encoded
    return _gathered(cut_chunks(encoded, tokenizer, max_length, prompt=prompt), encoded.ids.dtype)


def cut_chunks(
    encoded: Encoded, tokenizer: Tokenizer, max_length: int, *, prompt: str | None = None
) -> Iterator[Chunk]:
    """What `cut` gives, chunk by chunk."""
    around = Prompt.of(prompt)
    suffix = [*(around.ending(tokenizer) if around else []), *_Frame(tokenizer).suffix][-max_length:]
    for start in range(0, len(encoded), CHUNK):
        offsets = encoded.offsets[start : start + CHUNK + 1]
        sizes = np.diff(offsets)
        lengths = np.minimum(sizes, max_length)
        ends = np.cumsum(lengths)
        ids = encoded.ids[np.repeat(offsets[:-1] - (ends - lengths), lengths) + np.arange(ends[-1])]
        longer = sizes > max_length
        ids = _end_in(ids, ends[longer], suffix)
        yield Chunk(ids, lengths, encoded.truncated[start : start + CHUNK] | longer)


def _end_in(ids: np.ndarray, ends: np.ndarray, tokens: list[int]) -> np.ndarray:
    """The ids, where rows that end at these places now end in these tokens."""
    for back, token in enumerate(reversed(tokens), start=1):
        ids[ends - back] = token
    return ids


def settle(tokenizer: Tokenizer) -> None:
    """Switch off what a tokenizer.json may ask for and is done here, or for every batch anew."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """The smallest type that holds every id of the vocabulary."""
    largest = max(tokenizer.get_vocab_size() - 1, *tokenizer.get_added_tokens_decoder(), 0)
    return np.dtype(np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32)


def _gathered(chunks: Iterable[Chunk], dtype: np.dtype) -> Encoded:
    parts = [Chunk(np.zeros(0, dtype), np.zeros(0, np.int64), np.zeros(0, bool)), *chunks]
    return Encoded(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))]),
        np.concatenate([part.truncated for part in parts]),
    )


class _Frame:
    """The special tokens around every text, and what the text itself must not hold."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        sample = tokenizer.encode("a")
        inside = [index for index, added in enumerate(sample.special_tokens_mask) if not added]
        end = inside[-1] + 1 if inside else len(sample.ids)
        self.prefix = sample.ids[: inside[0] if inside else end]
        self.suffix = sample.ids[end:]
        self.size = len(self.prefix) + len(self.suffix)
        unknown = _unknown_id(tokenizer)
        added = tokenizer.get_added_tokens_decoder()
        # The unknown token is special, but stands in ordinary texts.
        self._special = sorted(index for index, token in added.items() if token.special and index != unknown)
        self._unknown = unknown if unknown is not None else 0

    def around(self, ids: np.ndarray, sizes: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Rows of these sizes with their special tokens: ids (tokens,) of the type, lengths (rows,) int64."""
        # SentencePiece vocabularies hold "<s>" and "[SEP]" as pieces, so that the literal is found there even
        # though added tokens are split.
        read = np.isin(ids, self._special)
        if read.any():
            ids = np.where(read, self._unknown, ids)
        if not self.size:
            empty = np.flatnonzero(sizes == 0)
            filler = self._special[0] if self._special else 0
            ids = np.insert(ids, (np.cumsum(sizes) - sizes)[empty], filler)
            return ids.astype(dtype), np.maximum(sizes, 1)
        lengths = sizes + self.size
        ends = np.cumsum(lengths)
        framed = np.empty(ends[-1], dtype=dtype)
        before = np.arange(len(sizes)) * self.size + len(self.prefix)
        framed[np.arange(len(ids)) + np.repeat(before, sizes)] = ids
        for place, token in enumerate(self.prefix):
            framed[ends - lengths + place] = token
        for back, token in enumerate(reversed(self.suffix), start=1):
            framed[ends - back] = token
        return framed, lengths


def _parts(texts: Texts) -> Iterator[Texts]:
    """The texts in chunks, each of one or more."""
    start = 0
    while start < len(texts):
        part = texts[start : start + CHUNK]
        sizes = _sizes(part)
        if sizes.sum() > CHUNK_CHARS:
            part = part[: max(1, int(np.searchsorted(np.cumsum(sizes), CHUNK_CHARS, side="right")))]
        yield part
        start += len(part)


def _sizes(texts: Texts) -> np.ndarray:
    """Characters of each text, in arrow bytes: (rows,) int64."""
    if isinstance(texts, Sequence):
        return np.fromiter((len(text or "") for text in texts), dtype=np.int64, count=len(texts))
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(pc.binary_length(texts), 0).to_numpy(), dtype=np.int64)


def _in_arrow(texts: Texts) -> pa.LargeStringArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(texts, Sequence):
        whole = pa.concat_arrays([pa.array([], pa.large_string()), *texts.cast(pa.large_string()).chunks])
    else:
        try:
            whole = pa.array(texts, pa.large_string())
        except UnicodeEncodeError:
            whole = pa.array(list(map(_clean, texts)), pa.large_string())
    return pc.fill_null(whole, "") if whole.null_count else whole


def _whole(texts: Texts, tokenizer: Tokenizer, limit: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first `limit` tokens of each text, read as a whole; as `Words.tokens` gives them."""
    strings = list(map(_clean, texts if isinstance(texts, Sequence) else texts.to_pylist()))
    long = [index for index, text in enumerate(strings) if limit is not None and len(text) > limit * CHARS_PER_TOKEN]
    starts = {index: _start(strings[index], tokenizer, limit or 0) for index in long}
    encodings = tokenizer.encode_batch_fast(
        [starts.get(index, text) for index, text in enumerate(strings)] if long else strings, add_special_tokens=False
    )
    rows = [encoding.ids for encoding in encodings]
    sizes = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    ids = np.fromiter((token for row in rows for token in row[:limit]), dtype=np.int64)
    kept = sizes if limit is None else np.minimum(sizes, limit)
    return ids, kept, sizes > kept


def _start(text: str, tokenizer: Tokenizer, limit: int) -> str:
    """The start of a very long text that gives the same first `limit` tokens as the whole text, and one more.

    Tokenising 10 MB to keep 512 tokens would take seconds. A prefix is enough when the kept tokens end
    before its last blank: what follows a blank does not change the tokens in front of it.
    """
    size = max(1, limit) * CHARS_PER_TOKEN
    while size < len(text):
        prefix = text[:size]
        encoding = tokenizer.encode(prefix, add_special_tokens=False)
        last_blank = max(prefix.rfind(blank) for blank in " \n\t")
        kept_until = max((end for _, end in encoding.offsets[:limit]), default=0)
        if len(encoding.ids) > limit and kept_until < last_blank:
            return prefix
        size *= 8
    return text


def _clean(text: str | None) -> str:
    # A lone surrogate (from undecodable bytes) cannot cross into Rust; a question mark stands for it.
    return (text or "").encode("utf-8", "replace").decode("utf-8") if _has_surrogate(text) else (text or "")


def _has_surrogate(text: str | None) -> bool:
    return bool(text) and not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)  # type: ignore[union-attr]


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    names = [getattr(tokenizer.model, "unk_token", None), "<unk>", "[UNK]"]  # a Unigram model does not say its own
    ids = (tokenizer.token_to_id(name) for name in names if name)
    return next((index for index in ids if index is not None), None)
