"""Texts to tokens as the tokenizer has them, without special tokens: in chunks, and no further than is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

Texts: TypeAlias = "Sequence[str | None] | pa.ChunkedArray"

CHUNK = 10_000
"""Texts tokenised at once, at most: enough to keep every core busy, small in memory."""
CHUNK_CHARS = 1 << 24
"""Characters (of an arrow column: bytes) tokenised at once, unless one text alone has more."""

CHARS_PER_TOKEN = 32
"""A prefix of this many characters per token nearly always holds all the tokens that are kept."""


def parts(texts: Texts) -> Iterator[Texts]:
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


def in_arrow(texts: Texts) -> pa.LargeStringArray:
    """The texts as one array, null as an empty text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(texts, Sequence):
        whole = pa.concat_arrays([pa.array([], pa.large_string()), *texts.cast(pa.large_string()).chunks])
        return pc.fill_null(whole, "") if whole.null_count else whole
    # Not by pa.array, which imports pandas to see whether it was given any: as long as 300 short texts take.
    try:
        encoded = [(text or "").encode() for text in texts]
    except UnicodeEncodeError:
        encoded = [_clean(text).encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), out=offsets[1:])
    return pa.LargeStringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def whole(texts: Texts, tokenizer: Tokenizer, limit: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
