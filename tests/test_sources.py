"""Every kind of file and folder gives the texts and labels that were written into it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import textclf
from textclf.data.labelled import read_labelled
from textclf.errors import DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder of real data sets is not beside the repository"
)

NASTY = [
    ("None", "NA"),
    ("nan", "TRUE"),
    ("TRUE", "None"),
    ("null", "nan"),
    ("1.0", "FALSE"),
    ("  both ends ", "na"),
    ("two\nlines", "a, b"),
    ("windows\r\nlines", 'say "so"'),
    ('"quoted"', "[/foo]"),
    ('""', "Sci/Tech"),
    ("a,b;c\td|e", "x?"),
    ("next\x85line \u2028 and\u2029", "ß"),
    ("\ufeffmark \u200b\u202e", "😀"),
    ("#NAME?", "N/A"),
    ("'", "none"),
    ("\\n\\", "\\"),
]


def as_csv(pairs, *, header=("text", "label"), delimiter=",", line="\n", quoting=csv.QUOTE_MINIMAL) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line, quoting=quoting)
    writer.writerows([*([header] if header else []), *pairs])
    return out.getvalue().encode("utf-8")


def as_jsonl(pairs) -> bytes:
    return b"".join(json.dumps({"text": t, "label": n}, ensure_ascii=False).encode() + b"\n" for t, n in pairs)


def as_parquet(pairs) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [t for t, _ in pairs], "label": [n for _, n in pairs]}), sink)
    return sink.getvalue()


def as_arrow(pairs) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"text": [t for t, _ in pairs], "label": [n for _, n in pairs]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


WRITERS = {
    "rows.csv": as_csv,
    "semicolon.csv": lambda pairs: as_csv(pairs, delimiter=";"),
    "excel.csv": lambda pairs: b"\xef\xbb\xbf" + as_csv(pairs, line="\r\n", quoting=csv.QUOTE_ALL),
    "rows.tsv": lambda pairs: as_csv(pairs, delimiter="\t"),
    "all.tsv": lambda pairs: as_csv(pairs, delimiter="\t", quoting=csv.QUOTE_ALL),
    "rows.jsonl": as_jsonl,
    "rows.ndjson": as_jsonl,
    "lines.json": as_jsonl,
    "list.json": lambda pairs: json.dumps([{"text": t, "label": n} for t, n in pairs], indent=1).encode(),
    "within.json": lambda pairs: json.dumps({"data": [{"text": t, "label": n} for t, n in pairs]}).encode(),
    "rows.parquet": as_parquet,
    "rows.arrow": as_arrow,
    "rows.csv.gz": lambda pairs: gzip.compress(as_csv(pairs)),
    "rows.jsonl.zst": lambda pairs: zstd(as_jsonl(pairs)),
    "rows.parquet.gz": lambda pairs: gzip.compress(as_parquet(pairs)),
    "rows.arrow.zst": lambda pairs: zstd(as_arrow(pairs)),
}


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def pairs_of(path, **told) -> list[tuple[str | None, str | None]]:
    rows = read_labelled(path, **told)
    return list(zip(rows.texts, rows.labels, strict=True))


def many(count: int = 40, labels: tuple = ("b", "a")) -> list[tuple]:
    return [(f"text number {i}", labels[i % len(labels)]) for i in range(count)]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_keeps_texts_and_labels_as_they_are(tmp_path, name):
    path = write(tmp_path, name, WRITERS[name](NASTY))
    assert pairs_of(path) == NASTY


# What csv and json can hold: any text without lone surrogates. Labels are no blanks and no numbers, which have
# rules, and do not end in a carriage return: before a line's end nobody can tell whose it is.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=0, max_size=30)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).map(
    lambda name: f"L{name}".rstrip("\r")
)


@pytest.mark.parametrize("name", ["rows.csv", "excel.csv", "rows.tsv", "rows.jsonl", "rows.parquet"])
@given(pairs=st.lists(st.tuples(texts, names), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_exactly(tmp_path, name, pairs):
    assert pairs_of(write(tmp_path, name, WRITERS[name](pairs))) == pairs


bare_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r")
bare = st.text(bare_characters, max_size=20).map("x".__add__)


@given(
    pairs=st.lists(
        st.tuples(
            bare,
            names.map(lambda name: name.translate({9: None, 10: None, 13: None})),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_plain_tsv_comes_back_exactly(tmp_path, pairs):
    data = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in pairs)
    assert pairs_of(write(tmp_path, "plain.tsv", data)) == pairs


def test_plain_tsv_keeps_quotes_that_open_and_never_close(tmp_path):
    path = write(tmp_path, "t.tsv", 'text\tlabel\n"open\ta\n"a whole quotation"\tb\nit\'s 5" wide\ta\n')
    assert [text for text, _ in pairs_of(path)] == ['"open', '"a whole quotation"', "it's 5\" wide"]


def test_crlf_plain_tsv_leaves_no_carriage_return(tmp_path):
    assert pairs_of(write(tmp_path, "t.tsv", "text\tlabel\r\none\ta\r\ntwo\tb\r\n")) == [("one", "a"), ("two", "b")]


def test_separator_line_of_spreadsheets_is_obeyed(tmp_path):
    assert pairs_of(write(tmp_path, "t.csv", "sep=;\r\ntext;label\r\na,b;x\r\n")) == [("a,b", "x")]


def test_empty_lines_are_no_rows(tmp_path):
    assert pairs_of(write(tmp_path, "t.csv", "\n\ntext,label\n\none,a\n\n\ntwo,b\n\n")) == [("one", "a"), ("two", "b")]


def test_headerless_file_gets_its_names_from_columns(tmp_path):
    path = write(tmp_path, "t.csv", as_csv([("1", *pair) for pair in NASTY], header=None))
    told = {"columns": ("id", "words", "kind"), "text_column": "words", "label_column": "kind"}
    assert pairs_of(path, **told) == NASTY
    with_header = write(tmp_path, "u.csv", as_csv(NASTY))
    assert pairs_of(with_header, columns=("text", "label")) == NASTY


def test_ten_megabyte_field_is_read(tmp_path):
    huge = "x" * 10_000_000 + '"\n' + "y" * 100
    assert pairs_of(write(tmp_path, "t.csv", as_csv([(huge, "a"), ("small", "b")]))) == [(huge, "a"), ("small", "b")]


def test_field_longer_than_a_block_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("textclf.data.delimited.BLOCK", 1 << 12)
    pairs = [("x" * 50_000, "a"), ("small", "b")] * 3
    assert pairs_of(write(tmp_path, "t.csv", as_csv(pairs))) == pairs


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (("id", "Tweet", "Sentiment"), ("Tweet", "Sentiment")),
        (("label", "title", "text", "target"), ("text", "label")),
        (("", "utterance", "outcome"), ("utterance", "outcome")),
        (("Unnamed: 0", "remark", "category"), ("remark", "category")),
    ],
)
def test_columns_are_found_by_name(tmp_path, header, found):
    rows = [tuple(f"{column}{i % 3 if column == found[1] else i}" for column in header) for i in range(60)]
    prepared = textclf.prepare(write(tmp_path, "t.csv", as_csv(rows, header=header)))
    assert (prepared.text_column, prepared.label_column) == found


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array([10, 9, 2] * 20), ("2", "9", "10")),
        (pa.array([1.0, 0.0, None] * 20), ("0", "1")),
        (pa.array([True, False] * 30), ("false", "true")),
        (pa.array(["b", "A", "c"] * 20), ("A", "b", "c")),
        (pa.array(["b", "A", "c"] * 20).dictionary_encode(), ("A", "b", "c")),
        (pa.array([-1, 0, 1] * 20, pa.int8()), ("-1", "0", "1")),
    ],
)
def test_labels_of_every_type_become_names(tmp_path, values, names):
    pq.write_table(pa.table({"text": [f"t{i}" for i in range(60)], "label": values}), tmp_path / "t.parquet")
    assert textclf.prepare(tmp_path / "t.parquet").label_set.names == names


def test_integers_that_a_csv_writes_as_floats_become_integers(tmp_path):
    path = write(tmp_path, "t.csv", as_csv([("a", "1.0"), ("b", "0.0"), ("c", ""), ("d", "1.0")]))
    assert pairs_of(path) == [("a", "1"), ("b", "0"), ("d", "1")]


def test_json_labels_may_be_numbers_or_truth_values(tmp_path):
    lines = [{"text": "a", "label": 1}, {"text": 7, "label": True}, {"label": 2.0, "text": None}, {"text": "e"}]
    path = write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, lines)))
    assert pairs_of(path) == [("a", "1"), ("7", "true"), ("", "2")]


def test_half_a_surrogate_pair_is_replaced_and_said(tmp_path):
    lines = [json.dumps({"text": f"cut {i} \ud83d", "label": "ab"[i % 2]}) for i in range(40)]
    prepared = textclf.prepare(write(tmp_path, "t.jsonl", "\n".join(lines)))
    assert prepared.rows("train").texts[0].endswith("\ufffd")
    assert any("40 texts" in step and "U+FFFD" in step for step in prepared.steps)


def class_label_table(ids, names):
    feature = {"label": {"names": names, "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    table = pa.table({"text": [f"t{i}" for i in range(len(ids))], "label": ids})
    return table.replace_schema_metadata(metadata)


def test_class_label_gives_names_in_its_order_and_minus_one_is_unlabelled(tmp_path):
    pq.write_table(class_label_table([1, 0, -1, 2] * 20, ["zebra", "ant", "bee"]), tmp_path / "t.parquet")
    prepared = textclf.prepare(tmp_path / "t.parquet")
    assert prepared.label_set.names == ("zebra", "ant", "bee")
    assert [(d.rows, d.reason) for d in prepared.dropped] == [(20, "no label")]


def test_ids_beside_names_give_the_names_in_the_order_of_the_ids(tmp_path):
    lines = [{"text": f"t{i}", "label": i % 3, "label_text": ["zebra", "ant", "bee"][i % 3]} for i in range(60)]
    prepared = textclf.prepare(write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, lines))))
    assert prepared.label_set.names == ("zebra", "ant", "bee")
    assert prepared.label_column == "label_text"
    told = textclf.prepare(tmp_path / "t.jsonl", label_column="label")
    assert told.label_set.names == ("0", "1", "2")


def test_split_with_hidden_labels_is_left_out(tmp_path):
    write(tmp_path, "d/train.csv", as_csv(many(60, ("0", "1"))))
    write(tmp_path, "d/test.csv", as_csv([(f"hidden {i}", "-1") for i in range(9)]))
    write(tmp_path, "d/validation.csv", as_csv([(f"none {i}",) for i in range(9)], header=("text",)))
    prepared = textclf.prepare(tmp_path / "d", test_size=0)
    assert prepared.splits == {"train": 54, "validation": 6}
    assert sum("was left out: none of its 9 rows has a label" in step for step in prepared.steps) == 2


def test_folder_with_shards_is_read_whole_and_in_order(tmp_path):
    for number in range(2):
        write(tmp_path, f"d/data/train-0000{number}-of-00002.parquet", as_parquet(many(60)[number * 30 :][:30]))
    write(tmp_path, "d/data/test-00000-of-00001-a09b74b3ef9c3b56.parquet", as_parquet([("t", "a"), ("u", "b")]))
    prepared = textclf.prepare(tmp_path / "d", validation_size=6)
    assert prepared.splits == {"train": 54, "validation": 6, "test": 2}


def test_subfolders_are_concatenated(tmp_path):
    write(tmp_path, "d/arxiv/train.csv", as_csv(many(30, ("a", "b"))))
    write(tmp_path, "d/pubmed/train.csv", as_csv([(f"p{i}", "cd"[i % 2]) for i in range(30)]))
    prepared = textclf.prepare(tmp_path / "d", test_size=0)
    assert sum(prepared.splits.values()) == 60
    assert prepared.label_set.names == ("a", "b", "c", "d")


def test_folders_named_as_splits_are_splits(tmp_path):
    write(tmp_path, "d/train/part-0.csv", as_csv(many(20)))
    write(tmp_path, "d/train/part-1.csv", as_csv(many(40)[20:]))
    write(tmp_path, "d/dev/all.csv", as_csv([("v", "a"), ("w", "b")]))
    prepared = textclf.prepare(tmp_path / "d", test_size=0)
    assert prepared.splits == {"train": 40, "validation": 2}


def test_one_format_is_read_for_all_splits_and_the_others_are_named(tmp_path):
    write(tmp_path, "d/train.csv", as_csv(many(40)))
    write(tmp_path, "d/train.parquet", as_parquet(many(40)))
    write(tmp_path, "d/test.csv", as_csv([("t", "a"), ("u", "b")]))
    prepared = textclf.prepare(tmp_path / "d")
    assert any("left unread" in step and "train.parquet" in step for step in prepared.steps)
    assert any("train from train.csv" in step for step in prepared.steps)


def test_name_proper_goes_before_names_that_contain_a_split(tmp_path):
    write(tmp_path, "d/train.csv", as_csv(many(40)))
    write(tmp_path, "d/auxiliary_train.csv", as_csv([("never", "read")]))
    write(tmp_path, "d/validation.csv", as_csv([("v", "a"), ("w", "b")]))
    write(tmp_path, "d/dev.csv", as_csv([("never", "read")]))
    prepared = textclf.prepare(tmp_path / "d", test_size=0)
    assert prepared.splits == {"train": 40, "validation": 2}
    assert any("left unread" in step and "auxiliary_train" in step and "dev" in step for step in prepared.steps)


def test_auxiliary_train_is_train_when_there_is_nothing_else(tmp_path):
    write(tmp_path, "d/auxiliary_train.csv", as_csv(many(40)))
    write(tmp_path, "d/test.csv", as_csv([("t", "a"), ("u", "b")]))
    prepared = textclf.prepare(tmp_path / "d")
    assert sum(prepared.splits.values()) == 42
    assert any("train is read from auxiliary_train" in step for step in prepared.steps)


def test_save_to_disk_folder_is_read_without_its_cache_files(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    rows = {"text": [t for t, _ in many(40)], "label": [i % 2 for i in range(40)]}
    train = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": train, "dev": train.select(range(4))}).save_to_disk(tmp_path / "d")
    (tmp_path / "d" / "train" / "cache-0123456789abcdef.arrow").write_bytes(b"not to be read")
    prepared = textclf.prepare(tmp_path / "d", test_size=0)
    assert prepared.splits == {"train": 40, "validation": 4}
    assert prepared.label_set.names == ("z", "a")
    train.save_to_disk(tmp_path / "one")
    assert sum(textclf.prepare(tmp_path / "one").splits.values()) == 40


def test_local_path_wins_over_catalog_and_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "banking77/train.csv", as_csv(many(40)))
    write(tmp_path, "owner/name/train.csv", as_csv(many(40)))
    assert len(textclf.prepare("banking77").label_set) == 2
    assert len(textclf.prepare("owner/name").label_set) == 2


def test_read_labelled_takes_the_named_split_or_the_whole_file(tmp_path):
    write(tmp_path, "d/train.csv", as_csv(many(40)))
    write(tmp_path, "d/val.csv", as_csv([("v", "a"), ("", "b"), ("x", "")]))
    assert pairs_of(tmp_path / "d", split="validation") == [("v", "a"), ("", "b")]
    assert len(pairs_of(tmp_path / "d" / "train.csv", split="test")) == 40
    with pytest.raises(DataError, match="no test split; it has train, validation"):
        read_labelled(tmp_path / "d", split="test")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_many_rows_are_read_in_bounded_time(tmp_path, name):
    import time

    pairs = [(f"text number {i}, with a comma and some words to fill it", f"label {i % 7}") for i in range(100_000)]
    path = write(tmp_path, name, WRITERS[name](pairs))
    start = time.process_time()  # not the clock's: other processes may be at work
    assert len(read_labelled(path)) == 100_000
    assert time.process_time() - start < 10


# --- real data --------------------------------------------------------------------------------------------------


@needs_shared
def test_banking77_is_read_as_published():
    prepared = textclf.prepare(SHARED / "banking77", validation_size=1000)
    assert prepared.splits == {"train": 9003, "validation": 1000, "test": 3080}
    assert list(prepared.label_set.names) == json.loads((SHARED / "banking77" / "label_names.json").read_text())
    rows = prepared.rows("test")
    assert sum(len(text.encode()) + 0 for text in rows.texts) > 100_000
    assert set(prepared.label_counts["test"].values()) == {40}


@needs_shared
def test_banking77_csv_and_parquet_hold_the_same_rows():
    assert pairs_of(SHARED / "banking77" / "train.csv") == pairs_of(SHARED / "banking77" / "train.parquet")
    with (SHARED / "banking77" / "train.csv").open(newline="", encoding="utf-8") as file:
        assert pairs_of(SHARED / "banking77" / "train.csv") == [(r["text"], r["label"]) for r in csv.DictReader(file)]


@needs_shared
def test_headerless_mmlu_files_lose_no_row():
    folder = SHARED / "mmlu" / "raw_csv" / "test"
    columns = ("question", "A", "B", "C", "D", "answer")
    rows = read_labelled(folder / "moral_disputes_test.csv", columns=columns, text_column="question")
    assert len(rows) == 346
    assert set(rows.labels) == set("ABCD")


@needs_shared
def test_scientific_singletons_stay_in_train_or_are_dropped():
    prepared = textclf.prepare(SHARED / "scientific" / "csv_layout_sample")
    lone = [name for name, count in prepared.label_counts["train"].items() if count == 1]
    assert len(lone) == 300
    assert not any(prepared.label_counts["test"][name] for name in lone)
    kept = textclf.prepare(SHARED / "scientific" / "csv_layout_sample", min_label_count=10)
    assert len(kept.label_set) == 10
    assert sum(kept.splits.values()) == 1000
    assert [(d.rows, d.split) for d in kept.dropped] == [(300, "train")]


@needs_shared
@pytest.mark.parametrize("name", ["hate", "irony", "emotion"])
def test_tweet_eval_keeps_its_splits_and_label_order(name):
    prepared = textclf.prepare(SHARED / f"tweet_eval_{name}")
    table = pq.read_table(SHARED / f"tweet_eval_{name}" / "test.parquet")
    assert prepared.rows("test").texts == table.column("text").to_pylist()
    ids = prepared.label_set.targets(prepared.rows("test").labels)
    assert np.array_equal(ids, table.column("label").to_numpy())
