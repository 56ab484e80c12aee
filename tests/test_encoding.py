"""Texts to tokens: any text has an answer, and special-token literals are plain text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

import tiny_models
from textclf.data import tokenising, words
from textclf.data.encoding import Encoded, cut, encode

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
    assert encoded.ids.dtype == np.uint16


def one_by_one(text: str, tokenizer: Tokenizer, max_length: int | None) -> list[int]:
    """What the tokenizer itself says of one text."""
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    if max_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_length)
    encoding = tokenizer.encode(text)
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    unknown = next((i for i in map(tokenizer.token_to_id, ("[UNK]", "<unk>")) if i is not None), None)
    read = special - {unknown}
    ids = [
        (unknown or 0) if index in read and not added else index
        for index, added in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    ]
    return ids or [min(read)]


AWKWARD = st.text(
    st.sampled_from(" \t\n\r\u00a0\u2003\u0301\u0085\x00\x0b.,'-[]<|>#@_") | st.sampled_from("aeé漢ß١2İſ🙂\ufffd")
    | st.characters(exclude_categories=["Cs"]), max_size=40,
)  # fmt: skip
PIECES = st.sampled_from(
    ["card", "don't", "[SEP]", "</s>", "<|endoftext|>", " ", "  ", "\n", "\u00a0", "é", "12", "a.b", "  x", ","]
)
TEXTS = AWKWARD | st.lists(PIECES, max_size=12).map("".join) | st.lists(PIECES, max_size=12).map(" ".join)


@EVERY
@given(texts=st.lists(TEXTS, max_size=8), max_length=st.none() | st.integers(4, 20))
@settings(max_examples=100, deadline=None)
def test_many_texts_have_the_tokens_of_each_alone(
    tokenizer: Tokenizer, texts: list[str], max_length: int | None
) -> None:
    expected = [one_by_one(text, tokenizer, max_length) for text in texts]
    # Many texts are taken apart into words, few are not.
    many = encode(texts + ["where is my card"] * 300, tokenizer, max_length=max_length)
    few = encode(texts, tokenizer, max_length=max_length)
    assert [many.row(index).tolist() for index in range(len(texts))] == expected
    assert [few.row(index).tolist() for index in range(len(texts))] == expected
    assert many.truncated[: len(texts)].tolist() == few.truncated.tolist()
    for index, text in enumerate(texts):
        assert few.truncated[index] == (len(one_by_one(text, tokenizer, None)) > (max_length or 10**9))


@EVERY
@given(texts=st.lists(TEXTS, min_size=1, max_size=8), longer=st.integers(0, 20), max_length=st.integers(4, 12))
@settings(max_examples=60, deadline=None)
def test_cutting_is_encoding_with_a_smaller_length(
    tokenizer: Tokenizer, texts: list[str], longer: int, max_length: int
) -> None:
    short = cut(encode(texts, tokenizer, max_length=max_length + longer), tokenizer, max_length)
    expected = encode(texts, tokenizer, max_length=max_length)
    assert_same(short, expected)


@EVERY
def test_an_arrow_column_is_encoded_as_a_list_is(tokenizer: Tokenizer) -> None:
    texts = [None if number % 50 == 0 else text for number, (text, _) in enumerate(tiny_models.rows(900))]
    column = pa.chunked_array([texts[:7], texts[7:], []], pa.string())
    assert_same(encode(column, tokenizer, max_length=9), encode(texts, tokenizer, max_length=9))
    assert_same(encode(column.slice(3, 400), tokenizer), encode(texts[3:403], tokenizer))


@EVERY
def test_no_chunk_size_changes_the_rows(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for text, _ in tiny_models.rows(700)]
    texts[300] = "long " * 2000
    whole = encode(texts, tokenizer, max_length=16)
    done: list[int] = []
    monkeypatch.setattr(tokenising, "CHUNK", 90)
    monkeypatch.setattr(tokenising, "CHUNK_CHARS", 500)
    monkeypatch.setattr(words, "REMEMBERED", 12)
    assert_same(encode(texts, tokenizer, max_length=16, on_progress=done.append), whole)
    assert len(done) > 50 and done == sorted(done) and done[-1] == 700


def test_ids_that_do_not_fit_into_16_bits_are_kept() -> None:
    vocabulary = {"[UNK]": 0, **{f"w{number}": number for number in range(1, 70_000)}}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    encoded = encode(["w1 w69999", "w65535 w65536"] * 200, tokenizer)
    assert encoded.ids.dtype == np.uint32
    assert encoded.ids[:4].tolist() == [1, 69_999, 65_535, 65_536]


def test_added_tokens_with_blanks_within_are_found() -> None:
    tokenizer = tiny_models.byte_bpe("gpt2").backend_tokenizer
    tokenizer.add_tokens(["where is"])
    row = encode(["so where is my card"] * 300, tokenizer).row(299)
    assert tokenizer.token_to_id("where is") in row.tolist()


def assert_same(one: Encoded, other: Encoded) -> None:
    assert one.ids.dtype == other.ids.dtype
    for name in ("ids", "offsets", "truncated", "lengths"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
