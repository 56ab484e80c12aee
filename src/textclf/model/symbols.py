"""Tokens of their own for emoji and other symbols that a tokenizer does not know.

A vocabulary of words such as BERT's has no emoji: each becomes the unknown token, and takes a word that it touches with
it. A symbol that Unicode has a name for is known by that name's words, and starts as the mean of their embeddings;
Eisner et al. 2016, "emoji2vec", learn emoji from their names in this way.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textclf.data.encoding import unknown_id
from textclf.data.tokenising import in_arrow, parts
from textclf.model.tokenizer import backend

if TYPE_CHECKING:
    import pyarrow as pa

BLOCKS = (
    (0x2600, 0x27BF),
    (0x1F170, 0x1F251),
    (0x1F300, 0x1F64F),
    (0x1F680, 0x1F6FF),
    (0x1F900, 0x1F9FF),
    (0x1FA70, 0x1FAFF),
)
"""Where Unicode has its emoji, first and last. Few lie elsewhere."""
JOINING = "\u200d\u20e3\ufe0f"
"""What joins, frames and styles emoji."""
PICTOGRAPHS = frozenset(JOINING).union(chr(code) for first, last in BLOCKS for code in range(first, last + 1))


def symbols_in(columns: Iterable[pa.ChunkedArray]) -> set[str]:
    """The symbols and punctuation marks beyond ASCII in these columns of texts, large_string without nulls."""
    import pyarrow.compute as pc

    found: set[str] = set()
    for column in columns:
        for part in parts(column):
            some = in_arrow(part)
            found.update(*some.filter(pc.invert(pc.string_is_ascii(some))).to_pylist())
    return {char for char in found if unicodedata.category(char)[0] in "SP" and not char.isascii()}


def rows_with(symbols: Iterable[str], columns: Iterable[pa.ChunkedArray]) -> int:
    """How many rows of these columns, of one length, hold one of these symbols, of which there is at least one."""
    import pyarrow.compute as pc

    pattern = "|".join(sorted(symbols))  # none of which means anything there
    held = functools.reduce(pc.or_, [pc.match_substring_regex(column, pattern) for column in columns])
    return int(pc.sum(held, min_count=0).as_py())


def unknown(symbols: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Those of the symbols, in their order, that have a name and that the tokenizer reads as its unknown token."""
    missing = unknown_id(backend(tokenizer))
    named = [char for char in symbols if unicodedata.name(char, "")]
    encodings = backend(tokenizer).encode_batch_fast(named, add_special_tokens=False)
    return [char for char, encoding in zip(named, encodings, strict=True) if missing in encoding.ids]


def add_symbols(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seen: Iterable[str]) -> list[str]:
    """Give symbols that the tokenizer does not know tokens of their own: those `seen`, and with one of the emoji all.

    The network's embeddings grow by a row for each token, the mean of the rows of its name's tokens. Returns what was
    added, nothing where the tokenizer knows all that was seen or spells it in bytes.
    """
    added = unknown(sorted(seen), tokenizer)
    if not PICTOGRAPHS.isdisjoint(added):
        added = unknown(sorted(PICTOGRAPHS.union(added)), tokenizer)
    if not added:
        return []
    embedding = cast(nn.Embedding, network.get_input_embeddings())
    names = backend(tokenizer).encode_batch_fast(
        [unicodedata.name(char).lower() for char in added], add_special_tokens=False
    )
    with torch.no_grad():
        rows = torch.stack([embedding.weight[encoding.ids].mean(dim=0) for encoding in names])
        # As they stand in a text: normalizers take some apart, or away.
        tokenizer.add_tokens([AddedToken(char, normalized=False) for char in added])
        if len(tokenizer) > embedding.num_embeddings:
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        ids = torch.tensor(tokenizer.convert_tokens_to_ids(added))
        cast(nn.Embedding, network.get_input_embeddings()).weight[ids] = rows
    return added
