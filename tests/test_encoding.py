"""Texts to tokens: any text has an answer, and special-token literals are plain text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import tiny_models
from textclf.data.encoding import encode

TOKENIZERS = {
    "wordpiece": tiny_models.wordpiece().backend_tokenizer,
    "roberta": tiny_models.byte_bpe("roberta").backend_tokenizer,
    "gpt2": tiny_models.byte_bpe("gpt2").backend_tokenizer,
    "llama": tiny_models.byte_bpe("llama").backend_tokenizer,
    "unigram": tiny_models.unigram().backend_tokenizer,
}
EVERY = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


@EVERY
@given(texts=st.lists(st.text(max_size=80), max_size=6), max_length=st.integers(4, 20))
@settings(max_examples=40)
def test_any_text_becomes_one_to_max_length_tokens(tokenizer: Tokenizer, texts: list[str], max_length: int) -> None:
    encoded = encode(texts, tokenizer, max_length=max_length)
    assert len(encoded) == len(texts) == len(encoded.truncated)
    assert all(1 <= length <= max_length for length in encoded.lengths)


@EVERY
@pytest.mark.parametrize(
    "text", ["", "\x00", "a\ud800b", "[SEP] [CLS] </s> <s> <|endoftext|> [PAD] <pad>", "\u0085\u2028", "  "]
)
def test_awkward_texts_are_encoded(tokenizer: Tokenizer, text: str) -> None:
    assert encode([text, None], tokenizer, max_length=16).lengths.min() >= 1


@EVERY
def test_special_token_literals_are_not_special(tokenizer: Tokenizer) -> None:
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    literals = "hello [SEP] [CLS] [PAD] </s> <s> <pad> <|endoftext|> bye"
    plain = encode(["hello bye"], tokenizer).row(0)
    ids = encode([literals], tokenizer).row(0)
    unknown = {index for index in special if tokenizer.id_to_token(index) in ("[UNK]", "<unk>")}
    assert sum(i in special - unknown for i in ids) == sum(i in special - unknown for i in plain)


@EVERY
def test_a_long_text_is_cut_as_the_whole_would_be(tokenizer: Tokenizer) -> None:
    words = " ".join(text for text, _ in tiny_models.rows(3000))
    for text in (words, " " * 70_000 + words, "x" * 40_000 + " " + words, "\n".join(words.split(" "))):
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        tokenizer.enable_truncation(24)
        whole = tokenizer.encode(text).ids
        encoded = encode([text], tokenizer, max_length=24)
        assert list(encoded.row(0)) == whole
        assert encoded.truncated[0] or len(whole) < 24


def test_truncation_is_told(tokenizer: Tokenizer = TOKENIZERS["wordpiece"]) -> None:
    encoded = encode(["card", "where is my card and when will it arrive"], tokenizer, max_length=6)
    assert list(encoded.truncated) == [False, True]
    assert encoded.ids.dtype == np.int32
