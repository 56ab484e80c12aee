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
    (0x2190, 0x21FF), (0x2300, 0x23FF), (0x25A0, 0x27BF), (0x2B00, 0x2BFF), (0x1F170, 0x1F251), (0x1F300, 0x1F64F),
    (0x1F680, 0x1F6FF), (0x1F7E0, 0x1F7F0), (0x1F900, 0x1F9FF), (0x1FA70, 0x1FAFF),
)  # fmt: skip
"""Where Unicode has its emoji, and more to come, first and last."""
SINGLE = "\u203c\u2049\u2139\u24c2\u2934\u2935\u3030\u303d\u3297\u3299\U0001f004\U0001f0cf"
"""The emoji elsewhere."""
JOINING = "\u200d\u20e3\ufe0f"
"""What joins, frames and styles emoji."""
PICTOGRAPHS = frozenset(SINGLE + JOINING).union(chr(code) for first, last in BLOCKS for code in range(first, last + 1))
"""All of them: a set that no version of Unicode changes, as a run may end under another Python than it began."""


def symbols_in(columns: Iterable[pa.ChunkedArray]) -> set[str]:
    """The emoji and other symbols and punctuation marks beyond ASCII in these columns of texts, large_string without
    nulls."""
    import pyarrow.compute as pc

    found: set[str] = set()
    for column in columns:
        for part in parts(column):
            some = in_arrow(part)
            found.update(*some.filter(pc.invert(pc.string_is_ascii(some))).to_pylist())
    return set(filter(is_symbol, found))


def is_symbol(char: str) -> bool:
    """Whether a character is an emoji or another symbol or punctuation mark beyond ASCII."""
    return char in PICTOGRAPHS or (not char.isascii() and unicodedata.category(char)[0] in "SP")


def rows_with(symbols: Iterable[str], columns: Iterable[pa.ChunkedArray]) -> int:
    """How many rows of these columns, of one length, hold one of these symbols, of which there is at least one."""
    import pyarrow.compute as pc

    pattern = "|".join(sorted(symbols))  # none of which means anything there
    held = functools.reduce(pc.or_, [pc.match_substring_regex(column, pattern) for column in columns])
    return int(pc.sum(held, min_count=0).as_py())


def unknown(symbols: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Those of the symbols, in their order, that the tokenizer reads as its unknown token."""
    missing, symbols = unknown_id(backend(tokenizer)), list(symbols)
    encodings = backend(tokenizer).encode_batch_fast(symbols, add_special_tokens=False)
    return [char for char, encoding in zip(symbols, encodings, strict=True) if missing in encoding.ids]


def add_symbols(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seen: Iterable[str]) -> list[str]:
    """Give symbols that the tokenizer does not know tokens of their own: those `seen`, and with one of the emoji all.

    The network's embeddings grow by a row for each token, the mean of the rows of its name's tokens; of one that this
    Python's Unicode has no name for, the mean of the others. Returns what was added: nothing where the tokenizer knows
    all that was seen or spells it in bytes, nor where ids are missing in its vocabulary, as new tokens get ids by its
    size and would take those of its last words.
    """
    added = unknown(sorted(seen), tokenizer)
    if not PICTOGRAPHS.isdisjoint(added):
        added = unknown(sorted(PICTOGRAPHS.union(added)), tokenizer)
    if not added or max(tokenizer.get_vocab().values()) >= len(tokenizer):
        return []
    embedding = cast(nn.Embedding, network.get_input_embeddings())
    names = [unicodedata.name(char, "").lower() for char in added]
    encodings = backend(tokenizer).encode_batch_fast(names, add_special_tokens=False)
    named = torch.tensor([bool(name and encoding.ids) for name, encoding in zip(names, encodings, strict=True)])
    with torch.no_grad():
        rows = torch.stack([embedding.weight[encoding.ids].mean(dim=0) for encoding in encodings])
        rows[~named] = rows[named].mean(dim=0) if named.any() else embedding.weight.mean(dim=0)
        # As they stand in a text: normalizers take some apart, or away.
        tokenizer.add_tokens([AddedToken(char, normalized=False) for char in added])
        if len(tokenizer) > embedding.num_embeddings:
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        ids = torch.tensor(tokenizer.convert_tokens_to_ids(added))
        cast(nn.Embedding, network.get_input_embeddings()).weight[ids] = rows
    return added
