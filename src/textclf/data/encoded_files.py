"""Token ids of large splits: memory-mapped files in the cache, made once for the same texts, tokenizer and length.

So memory does not grow with the number of rows; the operating system takes mapped pages back as it likes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from textclf import atomic, paths
from textclf.config import Overflow
from textclf.data.encoding import Chunk, Encoded, cut, cut_chunks, encode, encode_chunks, id_type, settle
from textclf.data.rows import spelled

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

LARGE = 1 << 26
"""Bytes of text from which on a split is kept in files; below, encoding anew takes about a second."""
ENCODING_VERSION = 2
"""Raised whenever the same texts would become other tokens."""

_FACTS = "encoded.json"
_OPTIONAL = ("second", "text")
"""Arrays that only pairs of texts, or only texts in windows, have."""


def encode_kept(
    texts: pa.ChunkedArray,
    tokenizer: Tokenizer,
    *,
    pairs: pa.ChunkedArray | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
    overflow: Overflow = "truncate",
    keep_pairs: bool = False,
    where: Callable[[int], str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Encoded:
    """What `encode` gives, memory-mapped where the texts are large.

    texts, pairs: large_string, none null. Raises ResourceError (disk full, no permission).
    """
    how: dict[str, Any] = {"max_length": max_length, "prompt": prompt, "overflow": overflow, "keep_pairs": keep_pairs}
    call: dict[str, Any] = {**how, "pairs": pairs, "where": where, "on_progress": on_progress}
    if texts.nbytes + (pairs.nbytes if pairs is not None else 0) < LARGE:
        return encode(texts, tokenizer, **call)
    folder = paths.cache_dir() / "encoded" / _key([texts] if pairs is None else [texts, pairs], tokenizer, how)
    chunks = encode_chunks(texts, tokenizer, **call)
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


def _key(columns: list[pa.ChunkedArray], tokenizer: Tokenizer, how: dict[str, Any]) -> str:
    import tokenizers

    settle(tokenizer)
    facts = [ENCODING_VERSION, tokenizers.__version__, tokenizer.to_str(), how, len(columns), len(columns[0])]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for column in columns:
        for piece in spelled(column):
            digest.update(piece)
    return digest.hexdigest()[:24]


def _keep(folder: Path, chunks: Iterable[Chunk], dtype: np.dtype) -> Encoded:
    rows = tokens = 0
    types = {"ids": dtype.name}
    with atomic.new_folder(folder) as draft:
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}

            def write(name: str, values: np.ndarray) -> None:
                if name not in files:
                    files[name] = stack.enter_context((draft / f"{name}.bin").open("wb"))
                    types[name] = values.dtype.name
                files[name].write(np.ascontiguousarray(values).data)

            write("offsets", np.zeros(1, np.int64))
            for chunk in chunks:
                write("ids", chunk.ids)
                write("offsets", np.cumsum(chunk.lengths) + tokens)
                write("truncated", chunk.truncated)
                for name in _OPTIONAL:
                    values = getattr(chunk, name)
                    if values is not None:
                        write(name, values)
                rows, tokens = rows + len(chunk.lengths), tokens + len(chunk.ids)
        atomic.write_json(draft / _FACTS, {"rows": rows, "tokens": tokens, "types": types})
    kept = _mapped(folder)
    assert kept is not None
    return kept


def _mapped(folder: Path) -> Encoded | None:
    """What was kept there; None where nothing is, or not all of it."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        sizes = {"ids": facts["tokens"], "offsets": facts["rows"] + 1}
        arrays = {
            name: np.memmap(folder / f"{name}.bin", dtype=dtype, mode="r", shape=(sizes.get(name, facts["rows"]),))
            for name, dtype in facts["types"].items()
        }
        return Encoded(**arrays)
    except (OSError, ValueError, KeyError, TypeError):
        return None
