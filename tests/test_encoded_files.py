"""Large splits: encoded into files of the cache, with the tokens that they would have in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tiny_models
from test_encoding import assert_same
from textclf.data import encoded_files, tokenising
from textclf.data.encoded_files import cut_kept, encode_kept
from textclf.data.encoding import encode


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEXTCLF_HOME", str(tmp_path))
    monkeypatch.setattr(encoded_files, "LARGE", 1)
    monkeypatch.setattr(tokenising, "CHUNK", 100)


def column(count: int) -> pa.ChunkedArray:
    texts = [text for text, _ in tiny_models.rows(count)]
    return pa.chunked_array([texts[:37], texts[37:]], pa.large_string())


def test_mapped_tokens_are_those_in_memory() -> None:
    tokenizer = tiny_models.wordpiece().backend_tokenizer
    kept = encode_kept(column(350), tokenizer, max_length=12)
    assert isinstance(kept.ids, np.memmap) and not kept.ids.flags.writeable
    assert_same(kept, encode(column(350), tokenizer, max_length=12))
    assert_same(cut_kept(kept, tokenizer, 7), encode(column(350), tokenizer, max_length=7))


def test_the_same_texts_are_encoded_once_however_they_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_models.wordpiece().backend_tokenizer
    first = encode_kept(column(350), tokenizer, max_length=12)
    done: list[int] = []
    again = encode_kept(
        pa.chunked_array([column(350).combine_chunks()]), tokenizer, max_length=12, on_progress=done.append
    )
    assert not done
    assert_same(again, first)


@pytest.mark.parametrize("change", ["texts", "length", "tokenizer"])
def test_anything_else_is_encoded_anew(change: str) -> None:
    tokenizer = tiny_models.wordpiece().backend_tokenizer
    encode_kept(column(350), tokenizer, max_length=12)
    other = tiny_models.byte_bpe("roberta").backend_tokenizer if change == "tokenizer" else tokenizer
    texts = column(349 if change == "texts" else 350)
    max_length = 11 if change == "length" else 12
    done: list[int] = []
    kept = encode_kept(texts, other, max_length=max_length, on_progress=done.append)
    assert done[-1] == len(texts)
    assert_same(kept, encode(texts, other, max_length=max_length))


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    tokenizer = tiny_models.wordpiece().backend_tokenizer
    first = encode(column(350), tokenizer, max_length=12)
    encode_kept(column(350), tokenizer, max_length=12)
    (ids,) = tmp_path.rglob("ids.bin")
    ids.write_bytes(ids.read_bytes()[:-2])
    assert_same(encode_kept(column(350), tokenizer, max_length=12), first)
