"""Token ids of large splits: memory-mapped files in the cache, made once for the same texts, tokenizer and length.

So memory does not grow with the number of rows; the operating system takes mapped pages back as it likes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textclf import atomic, paths
from textclf.data.encoding import Chunk, Encoded, cut, cut_chunks, encode, encode_chunks, id_type, settle
from textclf.data.rows import spelled

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

LARGE = 1 << 26
"""Bytes of text from which on a split is kept in files; below, encoding anew takes about a second."""
ENCODING_VERSION = 1
"""Raised whenever the same texts would become other tokens."""

_FACTS = "encoded.json"
_FILES = {"ids": "ids.bin", "offsets": "offsets.bin", "truncated": "truncated.bin"}


def encode_kept(
    texts: pa.ChunkedArray,
    tokenizer: Tokenizer,
    *,
    max_length: int | None = None,
    prompt: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Encoded:
    """What `encode` gives, memory-mapped where the texts are large.

    texts: large_string, none null. Raises ResourceError (disk full, no permission).
    """
    if texts.nbytes < LARGE:
        return encode(texts, tokenizer, max_length=max_length, prompt=prompt, on_progress=on_progress)
    folder = paths.cache_dir() / "encoded" / _key(texts, tokenizer, max_length, prompt)
    chunks = encode_chunks(texts, tokenizer, max_length=max_length, prompt=prompt, on_progress=on_progress)
    return _mapped(folder) or _keep(folder, chunks, id_type(tokenizer))


def cut_kept(encoded: Encoded, tokenizer: Tokenizer, max_length: int, *, prompt: str | None = None) -> Encoded:
    """What `cut` gives, memory-mapped where `encoded` is."""
    if not isinstance(encoded.ids, np.memmap) or max_length >= encoded.lengths.max(initial=0):
        return cut(encoded, tokenizer, max_length, prompt=prompt)
    source = Path(str(encoded.ids.filename)).parent
    folder = source.with_name(f"{source.name}-{max_length}")
    return _mapped(folder) or _keep(
        folder, cut_chunks(encoded, tokenizer, max_length, prompt=prompt), encoded.ids.dtype
    )


def _key(texts: pa.ChunkedArray, tokenizer: Tokenizer, max_length: int | None, prompt: str | None) -> str:
    import tokenizers

    settle(tokenizer)
    facts = [ENCODING_VERSION, tokenizers.__version__, tokenizer.to_str(), max_length, len(texts), prompt]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for piece in spelled(texts):
        digest.update(piece)
    return digest.hexdigest()[:24]


def _keep(folder: Path, chunks: Iterable[Chunk], dtype: np.dtype) -> Encoded:
    rows = tokens = 0
    with atomic.new_folder(folder) as draft:
        with (
            (draft / _FILES["ids"]).open("wb") as ids,
            (draft / _FILES["offsets"]).open("wb") as offsets,
            (draft / _FILES["truncated"]).open("wb") as truncated,
        ):
            offsets.write(np.zeros(1, np.int64).data)
            for chunk in chunks:
                ids.write(chunk.ids.data)
                offsets.write((np.cumsum(chunk.lengths) + tokens).data)
                truncated.write(chunk.truncated.data)
                rows, tokens = rows + len(chunk.lengths), tokens + len(chunk.ids)
        atomic.write_json(draft / _FACTS, {"rows": rows, "tokens": tokens, "ids": dtype.name})
    kept = _mapped(folder)
    assert kept is not None
    return kept


def _mapped(folder: Path) -> Encoded | None:
    """What was kept there; None where nothing is, or not all of it."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        rows, tokens = facts["rows"], facts["tokens"]
        arrays = {
            name: np.memmap(folder / _FILES[name], dtype=dtype, mode="r", shape=(size,))
            for name, dtype, size in (
                ("ids", np.dtype(facts["ids"]), tokens),
                ("offsets", np.dtype(np.int64), rows + 1),
                ("truncated", np.dtype(bool), rows),
            )
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Encoded(**arrays)
