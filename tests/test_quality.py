"""What `prepare` says of the data: copies of every kind, damaged texts, splits that differ, and --drop-leaks."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import textclf
from textclf.data import anomalies, quality
from textclf.data.copies import SIMILAR, find_copies, near_copies
from textclf.data.rows import codes, make_rows
from textclf.data.shift import split_shift
from textclf.errors import DataError

WORDS = [f"w{letter}{number}" for letter in "abcdefghij" for number in range(20)]


def similarity(one, other):
    grams = [{text[at : at + 5] for at in range(max(1, len(text) - 4))} for text in (one, other)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def sentences(count, *, seed=0, words=12):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(count)]


def write(path, pairs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in pairs), encoding="utf-8")
    return path


def labelled(texts):
    return [(text, "ab"[index % 2]) for index, text in enumerate(texts)]


def kinds(prepared):
    return {(found.kind, found.split): found for found in prepared.findings}


@settings(max_examples=40)
@given(st.lists(st.text("ab é", max_size=14), unique=True, max_size=25))
def test_near_copies_are_near(texts):
    for one, other in near_copies(pa.chunked_array([texts], pa.large_string())):
        assert one < other
        assert similarity(texts[one], texts[other]) >= SIMILAR


def test_nearly_all_near_copies_are_found():
    texts = sentences(150, words=20)
    draw = random.Random(1)
    for text in texts[:100]:
        words = text.split()
        words[draw.randrange(len(words))] = draw.choice(WORDS)
        texts.append(" ".join(words))
    true = {
        (one, other)
        for one in range(len(texts))
        for other in range(one + 1, len(texts))
        if similarity(texts[one], texts[other]) >= SIMILAR
    }
    found = set(map(tuple, near_copies(pa.chunked_array([texts], pa.large_string())).tolist()))
    assert found <= true
    assert len(true) > 50 and len(found) >= 0.98 * len(true)


def test_many_near_copies_of_one_text_cost_no_square(tmp_path):
    texts = [f"{' '.join(WORDS[:30])} number {index}" for index in range(5_000)]
    pairs = near_copies(pa.chunked_array([texts], pa.large_string()))
    assert len(pairs) < 16 * 5 * 5_000
    assert np.isin(np.arange(5_000), pairs).all()


def test_copies_differ_by_case_blanks_and_punctuation_only():
    texts = ["Where is it?", "where  is it", "WHERE IS IT!!", "where is", "C++", "C#", "🙂", "😡", "?!", "..."]
    rows = make_rows(texts, ["a"] * len(texts), file="f.csv")
    found = find_copies({"train": rows}, {"train": codes([rows], "text")[0]}, near=False)
    assert found.loose["train"].tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert found.near is None


def test_counts_equal_the_notes_of_the_real_sets(shared_data):
    splits = {}
    for split in ("train", "test"):
        table = parquet.read_table(shared_data / "banking77" / f"{split}.parquet")
        labels = table["label"].to_pylist()
        splits[split] = make_rows(table["text"].to_pylist(), [str(one) for one in labels], file=f"{split}.parquet")
    exact = dict(zip(splits, codes(list(splits.values()), "text"), strict=True))
    found = find_copies(splits, exact, near=True)
    labels = dict(zip(splits, codes(list(splits.values()), "label"), strict=True))

    def of_test(numbers, near=None):
        train, test = ((numbers[split], labels[split]) for split in ("train", "test"))
        return int(quality.overlap(train, test, near).shared.sum())

    assert (of_test(found.exact), of_test(found.loose)) == (0, 25)
    assert of_test(found.loose, found.near) > 100


def test_findings_name_kind_rows_and_an_example(shared_data):
    found = kinds(textclf.prepare(shared_data / "tweet_eval_hate"))
    leak = found["leak", "test"]
    assert leak.rows == 233 and "91 of them under another label" in leak.message
    assert leak.example == "test.parquet, row 75" and "--drop-leaks" in leak.hint
    assert "83 with control characters" in found["damaged texts", "train"].message


def test_leaks_of_every_kind_are_told_apart_and_dropped(tmp_path):
    train, test = sentences(300), sentences(40, seed=9)
    leaks = [train[1], train[2].upper() + "!", train[3] + " more"]
    write(tmp_path / "d/train.csv", labelled(train))
    write(tmp_path / "d/test.csv", [*labelled(test), (leaks[0], "a"), (leaks[1], "a"), (leaks[2], "a")])
    sizes = {"validation_size": 20}
    prepared = textclf.prepare(tmp_path / "d", **sizes)
    found = kinds(prepared)
    assert {kind: found[kind, "test"].rows for kind in ("leak", "loose leak", "near leak")} == {
        "leak": 1, "loose leak": 1, "near leak": 1,
    }  # fmt: skip
    assert "1 of them under another label" in found["leak", "test"].message
    assert found["near leak", "test"].example == "test.csv, row 43"

    clean = textclf.prepare(tmp_path / "d", drop_leaks="test", **sizes)
    assert clean.splits["test"] == 40 and clean.splits["train"] == prepared.splits["train"]
    assert [(one.split, one.rows) for one in clean.dropped] == [("test", 3)]
    assert not any("leak" in one.kind for one in clean.findings)
    assert clean.fingerprint != prepared.fingerprint
    without = textclf.prepare(tmp_path / "d", drop_leaks="train", **sizes)
    assert without.splits["test"] == 43 and without.splits["train"] == prepared.splits["train"] - 3
    assert not any("leak" in one.kind for one in without.findings)


def test_dropping_leaks_must_leave_something(tmp_path):
    data = labelled(sentences(60))
    write(tmp_path / "d/train.csv", data)
    write(tmp_path / "d/test.csv", data)
    write(tmp_path / "d/validation.csv", labelled(sentences(10, seed=7)))
    with pytest.raises(DataError, match="leaves no row in test"):
        textclf.prepare(tmp_path / "d", drop_leaks="test")
    with pytest.raises(DataError, match="leaves no row in train"):
        textclf.prepare(tmp_path / "d", drop_leaks="train")
    write(tmp_path / "d/test.csv", [(text, label) for text, label in data if label == "a"])
    with pytest.raises(DataError, match="leaves no row of label 'a' in train"):
        textclf.prepare(tmp_path / "d", drop_leaks="train")


def test_near_copies_in_train_with_unlike_labels(tmp_path):
    texts = sentences(80)
    write(tmp_path / "d/train.csv", [*labelled(texts), (texts[0] + " more", "b"), (texts[2].upper(), "a")])
    write(tmp_path / "d/validation.csv", labelled(sentences(10, seed=3)))
    found = kinds(textclf.prepare(tmp_path / "d", test_size=0))
    assert found["near copies", "train"].rows == 2
    assert "2 of them of texts under another label only" in found["near copies", "train"].message
    assert found["loose repeats", "train"].rows == 1
    assert ("loose conflicts", "train") not in found


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("naÃ¯ve cafÃ©", "read as another"), ("donâ€™t", "read as another"), ("\x80 euro", "U+0080"),
        ("wh\ufffdt", "U+FFFD"), ("\ufeffstart", "U+FEFF"), ("ðŸ˜€ fun", "read as another"),
    ],
)  # fmt: skip
def test_encoding_damage_is_seen(text, kind):
    rows = make_rows([text], ["a"], file="f.csv")
    assert [name for name, hit in anomalies.damaged(rows).items() if hit[0] and kind in name]


@given(st.text("aäöüßéèñçÃøåÄÅ€“”’—żłпривет日本语😀 .,!?-", max_size=20).filter(lambda text: "Ã" not in text))
def test_text_of_many_scripts_is_not_damaged(text):
    rows = make_rows([text], ["a"], file="f.csv")
    assert not any(hit[0] for hit in anomalies.damaged(rows).values())


def test_rows_without_words_are_no_text():
    texts = ["12.50", "?!", "🙂", "ok", "", " ", "A1b2" * 80, "日本語" * 200, "नमस्ते"]
    rows = make_rows(texts, ["a"] * len(texts), file="f.csv")
    assert anomalies.not_text(rows).tolist() == [True, True, False, False, False, False, True, False, False]


def test_shift_is_half_for_one_kind_of_text_and_high_for_two():
    one, same = (make_rows(sentences(200, seed=seed), ["a"] * 200, file="f") for seed in (1, 2))
    other = make_rows([f"{text} indeed" for text in sentences(200, seed=3)], ["a"] * 200, file="f")
    assert 0.35 < split_shift(one, same, seed=0) < 0.65
    assert split_shift(one, other, seed=0) > 0.95
    assert split_shift(one, other.take(np.arange(20)), seed=0) is None


def test_thorough_tells_of_a_shift_in_every_output(tmp_path, cli):
    write(tmp_path / "d/train.csv", labelled(sentences(200)))
    write(tmp_path / "d/test.csv", labelled(f"{text} indeed" for text in sentences(80, seed=5)))
    arguments = ("prepare", "-d", tmp_path / "d", "--thorough")
    document = json.loads(cli(*arguments, "--json").stdout)
    assert document["shifts"]["test"] > 0.8
    assert any(found["kind"] == "shift" for found in document["findings"])
    assert document["lengths"]["train"]["texts"] == document["splits"]["train"]
    shown = cli(*arguments)
    assert "ROC-AUC" in shown.stderr and "characters in train: half up to" in shown.stdout
    assert "--thorough" in shown.stderr


def test_size_decides_whether_near_copies_are_looked_for_unasked(tmp_path, monkeypatch):
    texts = sentences(60)
    near = texts[0] + " more"
    write(tmp_path / "d/train.csv", [*labelled(texts), (near, "a")])
    monkeypatch.setattr("textclf.data.preparation._QUICK", 100)
    few = textclf.prepare(tmp_path / "d")
    assert any("near copies were not looked for" in step for step in few.steps)
    assert not any("near" in found.kind for found in few.findings)
    all_of_them = textclf.prepare(tmp_path / "d", thorough=True)
    assert any("near" in found.kind for found in all_of_them.findings)
