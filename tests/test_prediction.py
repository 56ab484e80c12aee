"""The library's predictor: order, scores, windows, and texts of every kind."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import textclf
import tiny_models
from textclf.data.encoding import Encoded
from textclf.errors import DataError, ModelError, UsageError
from textclf.inference import explaining, reading
from textclf.inference.prediction import Predictor, load

STRANGE = [
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x1b[31mred\x1b[0m",
    "one\u0085two\u2028three\u2029",
    "\u202eevil\u2066",
    "half \ud800 a pair \udfff",
    "[SEP] [CLS] [PAD] [MASK] [UNK]",
    "tab\tline\nbreak\r\nback\\slash",
    "=cmd|' /C calc'!A0",
    "日本語のテキスト 🙂 👩\u200d👩\u200d👧",
    "x" * 100_000,
    "word " * 100_000,
]


@pytest.fixture(scope="module")
def predictor(tiny_artifact: Path) -> Predictor:
    return load(tiny_artifact, device="cpu")


def mixed(count: int) -> list[str]:
    """Texts of many lengths in no order."""
    generator = random.Random(0)
    return [
        " ".join(["card", "refund", "login", "the"][generator.randrange(4)] for _ in range(generator.randrange(80)))
        for _ in range(count)
    ]


def test_load_is_public_and_names_the_classes(tiny_artifact: Path, predictor: Predictor) -> None:
    assert textclf.load is load
    assert predictor.classes_.tolist() == ["a", "b", "c"]


def test_scores_equal_the_transformers_pipeline(tiny_artifact: Path, predictor: Predictor) -> None:
    from transformers import pipeline

    texts = [text for text in mixed(40) if text] + ["where is my [SEP] card?", "naïve café 你好"]
    reference = pipeline("text-classification", str(tiny_artifact), device="cpu")
    expected = reference(texts, top_k=None, truncation=True, max_length=64)
    probs = predictor.predict_proba(texts)
    for row, answer in enumerate(expected):
        by_name = {one["label"]: one["score"] for one in answer}
        assert probs[row] == pytest.approx([by_name[name] for name in predictor.classes_], abs=1e-5)
    assert predictor.predict(texts).tolist() == [answer[0]["label"] for answer in expected]


def test_order_and_scores_do_not_depend_on_company(predictor: Predictor) -> None:
    texts = mixed(200)
    together = predictor.predict_proba(texts)
    alone = np.concatenate([predictor.predict_proba([text]) for text in texts[:12]])
    assert together.dtype == np.float32
    assert np.allclose(together[:12], alone, atol=1e-5)
    assert np.allclose(together[::-1], predictor.predict_proba(texts[::-1]), atol=1e-5)
    assert np.allclose(together.sum(axis=1), 1, atol=1e-5)
    streamed = list(predictor.predictions(iter(texts)))
    assert [one.text for one in streamed] == texts
    assert [one.label for one in streamed] == predictor.predict(texts).tolist()
    assert [one.score for one in streamed] == pytest.approx(together.max(axis=1).tolist(), abs=1e-5)


def test_no_texts_give_empty_arrays(predictor: Predictor) -> None:
    assert predictor.predict([]).shape == (0,)
    assert predictor.predict_proba([]).shape == (0, 3)
    assert predictor.predict_proba([]).dtype == np.float32
    assert list(predictor.predictions([])) == []


@pytest.mark.parametrize("wrong", ["a text", b"a text", ["fine", None], ["fine", 3]])
def test_what_is_not_many_texts_is_a_usage_error(predictor: Predictor, wrong: object) -> None:
    for method in (predictor.predict, predictor.predict_proba, lambda texts: list(predictor.predictions(texts))):
        with pytest.raises(UsageError):
            method(wrong)  # type: ignore[arg-type]


def test_one_text_in_place_of_many_is_told_at_the_call(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="many"):
        predictor.predictions("a text")
    with pytest.raises(UsageError, match="top_k"):
        predictor.predictions(["a text"], top_k=0)


def test_top_k_is_best_first_and_at_most_all_labels(predictor: Predictor) -> None:
    texts = mixed(20)
    probs = predictor.predict_proba(texts)
    for top_k, count in ((1, 1), (2, 2), (3, 3), (99, 3)):
        for one, row in zip(predictor.predictions(texts, top_k=top_k), probs, strict=True):
            assert len(one.scores) == count
            assert [score for _, score in one.scores] == pytest.approx(sorted(row, reverse=True)[:count], abs=1e-6)
            assert one.scores[0] == (one.label, one.score)


def test_every_strange_text_gets_an_answer(predictor: Predictor) -> None:
    answers = list(predictor.predictions(STRANGE))
    assert [one.text for one in answers] == STRANGE
    assert all(one.label in ("a", "b", "c") and 0 <= one.score <= 1 for one in answers)
    assert answers[-1].truncated
    assert not answers[0].truncated


def test_a_special_token_in_a_text_is_plain_characters(predictor: Predictor) -> None:
    """Were "[SEP]" read as the token, "[ SEP ]" would score otherwise: BERT splits both at the brackets."""
    literal, spaced = predictor.predict_proba(["card [SEP] refund", "card [ sep ] refund"])
    assert literal == pytest.approx(spaced, abs=1e-6)


def test_label_names_are_kept_to_the_last_character(tmp_path: Path) -> None:
    names = ["plain", "with\ttab", "trailing\0"]
    predictor = load(tiny_models.artifact(tmp_path / "odd", names))
    assert predictor.classes_.tolist() == names
    assert set(predictor.predict(mixed(50))) <= set(names)


def test_damaged_weights_are_told_not_answered(predictor: Predictor) -> None:
    class Broken:
        def logits(self, encoded: Encoded) -> np.ndarray:
            return np.full((len(encoded), 3), np.nan, dtype=np.float32)

    with pytest.raises(ModelError, match="NaN"):
        Predictor(predictor.artifact, Broken()).predict(["x"])


def test_a_stream_is_answered_as_it_comes_in_growing_windows(predictor: Predictor) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"text {read}"

    answers = predictor.predictions(endless())
    next(answers)
    assert read == reading.FIRST_TEXTS
    for _ in range(reading.FIRST_TEXTS):
        next(answers)
    assert read == 3 * reading.FIRST_TEXTS


# --- reading ----------------------------------------------------------------------------------------------------


def lines_of(data: bytes, **options: object) -> list[str]:
    return [text for window in reading.lines(io.BytesIO(data), is_ready=lambda: True) for text in window]


class Dripping(io.BytesIO):
    """A stream that gives a few bytes at a time."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(3)


@given(st.binary())
def test_bytes_of_any_kind_give_one_text_per_line(data: bytes) -> None:
    texts = lines_of(data)
    plain = data.removeprefix(b"\xef\xbb\xbf")
    expected = plain.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert texts == [line.removesuffix(b"\r").decode("utf-8", "replace") for line in expected]
    dripped = [text for window in reading.lines(Dripping(data), is_ready=lambda: False) for text in window]
    assert dripped == texts


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"))))
def test_texts_come_back_from_lines(texts: list[str]) -> None:
    assert lines_of("".join(text + "\n" for text in texts).encode()) == texts


def test_only_a_newline_ends_a_line() -> None:
    text = "a\u0085b\u2028c\u2029d\x0be\x0cf\x1cg\rh"
    assert lines_of(f"{text}\n\n\r\nlast".encode()) == [text, "", "", "last"]


def test_windows_are_bounded_in_texts_and_in_characters() -> None:
    sizes = [len(window) for window in reading.windows("x" for _ in range(20_000))]
    assert sizes[:3] == [64, 128, 256]
    assert max(sizes) == reading.MAX_TEXTS
    assert sum(sizes) == 20_000
    long = ["x" * (reading.MAX_CHARS // 2)] * 5
    assert [len(window) for window in reading.windows(long)] == [2, 2, 1]
    stream = io.BytesIO(b"\n" * 20_000)
    assert max(len(window) for window in reading.lines(stream, is_ready=lambda: True)) == reading.MAX_TEXTS


def test_what_was_read_before_a_failure_is_handed_out() -> None:
    def failing() -> Iterator[str]:
        yield "one"
        yield "two"
        raise DataError("broken")

    windows = reading.windows(failing())
    assert next(windows) == ["one", "two"]
    with pytest.raises(DataError):
        next(windows)


TEXTS = ["where is my card?", 'a "quoted", one', "two\nlines", "NA", "", "日本語"]


def files(folder: Path) -> Iterator[Path]:
    """The same texts in every kind of file."""
    import csv

    table = pa.table({"id": list(range(len(TEXTS))), "text": TEXTS, "note": ["n"] * len(TEXTS)})
    rows = table.to_pylist()
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        yield folder / name
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    yield folder / "a.jsonl"
    (folder / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    yield folder / "a.json"
    parquet.write_table(table, folder / "a.parquet")
    yield folder / "a.parquet"
    with pa.OSFile(str(folder / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    yield folder / "a.arrow"
    (folder / "a.csv.gz").write_bytes(gzip.compress((folder / "a.csv").read_bytes()))
    yield folder / "a.csv.gz"
    with pa.CompressedOutputStream(str(folder / "a.jsonl.zst"), "zstd") as stream:
        stream.write((folder / "a.jsonl").read_bytes())
    yield folder / "a.jsonl.zst"


def texts_of(*paths: Path | str, text_column: str | None = None, stdin: bytes | None = None) -> list[str]:
    stream = io.BytesIO(stdin) if stdin is not None else None
    windows = reading.file_windows([str(path) for path in paths], reading.Wanted(text_column=text_column), stdin=stream)
    return [text for window in windows for text in window]


def test_every_kind_of_file_gives_the_same_texts(tmp_path: Path) -> None:
    for path in files(tmp_path):
        assert texts_of(path) == TEXTS, path.name
        assert texts_of(path, text_column="note") == ["n"] * len(TEXTS), path.name


def test_plain_files_are_read_like_standard_input(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbfone\r\n\ntwo \xff\x85\nlast"
    (tmp_path / "a.txt").write_bytes(data)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(data))
    with pa.CompressedOutputStream(str(tmp_path / "a.txt.zst"), "zstd") as stream:
        stream.write(data)
    expected = ["one", "", "two \ufffd\ufffd", "last"]
    for path in (tmp_path / "a.txt", tmp_path / "a.txt.gz", tmp_path / "a.txt.zst"):
        assert texts_of(path) == expected
    assert texts_of(tmp_path / "a.txt", "-", tmp_path / "a.txt", stdin=b"mid\n") == [*expected, "mid", *expected]


def test_numbers_and_nulls_are_texts_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": 5}\n{"text": null}\n{"other": 1}\n{"text": true}\n')
    assert texts_of(tmp_path / "a.jsonl") == ["5", "", "", "true"]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_input_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.csv", b"text\none\n")
    cases = [
        (tmp_path / "none.csv", "no such file"),
        (tmp_path, "folder"),
        (write(tmp_path / "a.xlsx", b"PK"), "unknown kind"),
        (write(tmp_path / "wide.txt", "text\n".encode("utf-16")), "UTF-16"),
        (write(tmp_path / "w.txt.zst", pa.compress("text\n".encode("utf-16"), codec="zstd", asbytes=True)), "UTF-16"),
        (write(tmp_path / "cut.txt.gz", gzip.compress(b"some text\n" * 100)[:-9]), "gzip"),
        (write(tmp_path / "broken.jsonl", b'{"text": "a"}\n{"text": \n'), "line 2"),
        (write(tmp_path / "two.csv", b"x,y\n1,2\n"), "--text-column"),
        (write(tmp_path / "headless.csv", b"where is my card?\nlost it\n"), "--text-column"),
    ]
    for path, words in cases:
        with pytest.raises(DataError) as caught:
            texts_of(path)
        assert words in str(caught.value)
        assert path.name in str(caught.value)
    with pytest.raises(DataError, match="did you mean 'text'"):
        texts_of(good, text_column="txet")
    with pytest.raises(UsageError, match="no columns"):
        texts_of("-", text_column="text", stdin=b"x\n")
    with pytest.raises(UsageError, match="closed"):
        texts_of("-")


def test_texts_stay_out_of_messages(tmp_path: Path) -> None:
    secret = "my name is Alice and my card number is 1234 5678"
    path = write(tmp_path / "headless.csv", f"{secret},{secret}\nb,c\n".encode())
    with pytest.raises(DataError) as caught:
        texts_of(path)
    assert "Alice" not in str(caught.value)


def test_answers_before_a_broken_file_are_given(tmp_path: Path) -> None:
    good = write(tmp_path / "good.txt", b"one\ntwo\n")
    cut = write(tmp_path / "cut.txt.gz", gzip.compress(b"three\n" * 5)[:-9])
    windows = reading.file_windows([str(good), str(cut)])
    assert next(windows) == ["one", "two"]
    assert next(windows) == ["three"] * 5
    with pytest.raises(DataError, match=r"cut\.txt\.gz"):
        next(windows)


def test_a_name_on_the_command_line_is_a_file_or_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.csv").mkdir()
    Path("notes").write_text("x")
    for name in ("-", "a.csv", "no/such.txt", "a.jsonl.gz", "a.TXT", "notes", "table.xlsx"):
        assert reading.is_data_file(name), name
    for name in ("banking77", "owner/model", "owner/model-v1.5", ".", "run.csv", ""):
        assert not reading.is_data_file(name), name


@pytest.mark.parametrize("texts", [None, 3, {"a": 1}, b"bytes", "one text"])
def test_what_is_no_list_of_texts_is_refused(predictor: Predictor, texts: Any) -> None:
    with pytest.raises(UsageError):
        predictor.predict(texts)


def test_a_word_weighs_what_the_answer_loses_without_it(tiny_artifact: Path) -> None:
    predictor = textclf.load(tiny_artifact, device="cpu")
    text = "where is  my card, 你好 please"
    (plain,) = predictor.predictions([text])
    (found,) = predictor.predictions([text], explain=True)
    assert plain.words is None and dataclasses.replace(found, words=None) == plain
    assert found.words is not None
    assert [one.text for one in found.words] == ["where", "is", "my", "card", ",", "你", "好", "please"]
    assert all(text[one.start : one.end] == one.text for one in found.words)
    (left,) = predictor.predictions(["where is  my , 你好 please"], top_k=3)
    assert found.words[3].weight == pytest.approx(found.score - dict(left.scores)[found.label], abs=1e-6)
    (empty,) = predictor.predictions(["  "], explain=True)
    assert empty.words == ()
    assert len(list(predictor.predictions(STRANGE, explain=True))) == len(STRANGE)


def test_an_explanation_of_a_long_text_takes_a_bounded_number_of_answers() -> None:
    text = " ".join(f"word{n}" for n in range(1000))
    spans = explaining.words(text)
    assert len(spans) <= explaining.MOST and spans[0][0] == 0 and spans[-1][1] == len(text)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(spans))
