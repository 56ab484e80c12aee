"""What cannot be read or learnt is refused, with exit code 3 (5 for the Hub): what, where, and how to mend it."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textclf.data.preparation import prepare
from textclf.errors import DataError, HubError, TextclfError

GOOD = "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40))


def parquet(folder: Path, name: str, **columns) -> None:
    pq.write_table(pa.table(columns), folder / name)


def write(folder: Path, name: str, data: str | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def truncated_parquet(folder):
    parquet(folder, "t.parquet", text=["a"] * 99, label=["b"] * 99)
    write(folder, "t.parquet", (folder / "t.parquet").read_bytes()[:-200])


def floats(folder):
    parquet(folder, "t.parquet", text=["a", "b"], label=[0.5, 1.0])


def lists(folder):
    parquet(folder, "t.parquet", text=["a", "b"], label=[["x"], ["x", "y"]])


def lists_of_one(folder):
    parquet(folder, "t.parquet", text=["a", "b"], label=[["x"], []])


def lists_of_ids(folder):
    features = {"label": {"feature": {"names": ["x", "y"], "_type": "ClassLabel"}, "_type": "List"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"text": ["a", "b"], "label": [[0, 1], [7]]})
    pq.write_table(table.replace_schema_metadata(metadata), folder / "t.parquet")


def lists_as_texts(folder):
    parquet(folder, "t.parquet", text=[["a"], ["b"]], label=["x", "y"])


def dates(folder):
    import datetime

    parquet(folder, "t.parquet", text=["a", "b"], label=[datetime.date(2026, 1, 1)] * 2)


def bad_utf8_in_parquet(folder):
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"text": text, "label": ["a"]}), folder / "t.parquet")


def out_of_range(folder):
    features = {"label": {"names": ["x"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table({"text": ["a"], "label": [7]}).replace_schema_metadata(metadata), folder / "t.parquet")


# What the folder holds (files, or a function that writes them), the data set asked for, settings, words of the error.
CASES = {
    "missing file": ({}, "nowhere.csv", {}, ["nowhere.csv does not exist"]),
    "missing file, near one": (
        {"train.csv": GOOD},
        "trian.csv",
        {},
        ["trian.csv does not exist", "did you mean", "train.csv"],
    ),
    "missing folder": ({}, "no/where/t.csv", {}, ["does not exist", "neither does the folder"]),
    "spreadsheet": ({"t.xlsx": b"PK\3\4"}, "t.xlsx", {}, [".xlsx", "save it as csv"]),
    "pickle": ({"t.pkl": b"\x80\4"}, "t.pkl", {}, ["pickle files can run code"]),
    "no extension": ({"rows": GOOD}, "rows", {}, ["without an extension", "csv, tsv, json"]),
    "empty file": ({"t.csv": ""}, "t.csv", {}, ["t.csv is empty"]),
    "empty parquet": ({"t.parquet": b""}, "t.parquet", {}, ["t.parquet", "not a whole parquet file"]),
    "empty arrow": ({"t.arrow": b""}, "t.arrow", {}, ["t.arrow is empty"]),
    "header only": ({"t.csv": "text,label"}, "t.csv", {}, ["train has no rows"]),
    "empty list": ({"t.json": "[]"}, "t.json", {}, ["no rows"]),
    "unknown column": (
        {"t.csv": GOOD},
        "t.csv",
        {"text_column": "txt"},
        ["no column 'txt'", "did you mean 'text'", "'label'"],
    ),
    "unsure": (
        {"t.csv": "a,b,c\n1,2,3\n"},
        "t.csv",
        {},
        ["cannot tell", "'a', 'b', 'c'", "--text-column", "--label-column"],
    ),
    "label unsure": ({"t.csv": "text,b,c\n1,2,3\n"}, "t.csv", {}, ["holds the labels", "--label-column"]),
    "one column": ({"t.csv": "text\none\ntwo\n"}, "t.csv", {}, ["one column only", "--columns text,label"]),
    "no header": (
        {"t.csv": f"{'x' * 60},a,1\n{'y' * 60},b,2\n"},
        "t.csv",
        {},
        ["(60 characters)", "--columns text,label"],
    ),
    "same column": (
        {"t.csv": GOOD},
        "t.csv",
        {"text_column": "text", "label_column": "text"},
        ["both the text and the label"],
    ),
    "doubled column": ({"t.csv": "text,text,label\na,b,c\n"}, "t.csv", {}, ["2 columns are named 'text'"]),
    "pair of texts": ({"t.csv": "question,sentence,label\na,b,c\n"}, "t.csv", {}, ["stands beside", "--text-column"]),
    "columns that do not fit": (
        {"t.csv": "a,b\n"},
        "t.csv",
        {"columns": ("x", "y", "z")},
        ["row 1: 2 fields", "names 3"],
    ),
    "columns for jsonl": ({"t.jsonl": "{}"}, "t.jsonl", {"columns": ("x", "y")}, ["leave --columns out"]),
    "one label": ({"t.csv": "text,label\na,x\nb,x\n"}, "t.csv", {}, ["one label only, 'x'"]),
    "no label": ({"t.csv": "text,label\na,\nb,\n"}, "t.csv", {}, ["no row of train has a label", "--label-column"]),
    "every text empty": ({"t.csv": "text,label\n,x\n ,y\n"}, "t.csv", {}, ["every text of train is empty"]),
    "too few rows": (
        {"t.csv": "text,label\na,x\nb,y\n"},
        "t.csv",
        {},
        ["too few rows to cut a test split", "--test-size 0"],
    ),
    "too few for validation": (
        {"t.csv": "text,label\na,x\nb,y\n"},
        "t.csv",
        {"test_size": 0},
        ["too few rows to cut a validation split"],
    ),
    "too much asked": (
        {"t.csv": GOOD},
        "t.csv",
        {"validation_size": 500},
        ["split of 500", "36 rows", "--validation-size"],
    ),
    "fewer rows than labels": ({"t.csv": GOOD}, "t.csv", {"max_rows": 1}, ["1 row for 2 labels", "--max-rows"]),
    "too rare": ({"t.csv": GOOD}, "t.csv", {"min_label_count": 99}, ["no label has 99 rows"]),
    "unknown label in test": (
        {"d/train.csv": GOOD, "d/test.csv": "text,label\nq,a\nq,zeta\n"},
        "d",
        {},
        ["test.csv, row 2", "'zeta'", "train"],
    ),
    "text column missing in test": (
        {"d/train.csv": GOOD, "d/test.csv": "words,label\nq,a\n"},
        "d",
        {},
        ["test.csv: no column 'text'", "'words'"],
    ),
    "label column missing in a part": (
        {"d/train-0.csv": GOOD, "d/train-1.csv": "text,kind\nq,a\n"},
        "d",
        {},
        ["train-1.csv: no column 'label'"],
    ),
    "ragged": (
        {"t.csv": "text,label\na,x\n\nb, c,y\nd\n"},
        "t.csv",
        {},
        ["row 2: 3 fields", "2 columns", "1 rows more", "quotes"],
    ),
    "ragged tsv": (
        {"t.tsv": "text\tlabel\na\tx\nb\n"},
        "t.tsv",
        {},
        ["t.tsv, row 2: 1 field where there are 2 columns"],
    ),
    "open quote": ({"t.csv": 'text,label\na,x\n"b,y\nc,x\n'}, "t.csv", {}, ["t.csv, row 2", "does not close"]),
    "quote closed early": ({"t.csv": 'text,label\n"he said "no" twice",y\n'}, "t.csv", {}, ["row 1", "does not close"]),
    "latin-1 csv": ({"t.csv": GOOD.encode() + b"caf\xe9,a\n"}, "t.csv", {}, ["line 42, byte", "not UTF-8", "iconv -f"]),
    "latin-1 tsv": ({"t.tsv": b"text\tlabel\ncaf\xe9\ta\n"}, "t.tsv", {}, ["line 2, byte 15", "iconv"]),
    "latin-1 jsonl": (
        {"t.jsonl": b'{"text": "a"}\n{"text": "caf\xe9"}\n'},
        "t.jsonl",
        {},
        ["t.jsonl, line 2", "iconv"],
    ),
    "utf-16": ({"t.csv": GOOD.encode("utf-16")}, "t.csv", {}, ["UTF-16", "iconv -f UTF-16"]),
    "utf-8 broken in parquet": (bad_utf8_in_parquet, "t.parquet", {}, ["t.parquet", "UTF8"]),
    "broken json line": (
        {"t.jsonl": '{"text": "a"}\n\n{"text": "b",}\n'},
        "t.jsonl",
        {},
        ["t.jsonl, line 3: not JSON"],
    ),
    "json line that is a list": ({"t.jsonl": '{"text": "a"}\n["b"]\n'}, "t.jsonl", {}, ["line 2: a list"]),
    "json too deep": ({"t.jsonl": '{"a":' * 99999}, "t.jsonl", {}, ["line 1: not JSON"]),
    "json number too long": ({"t.jsonl": '{"text": ' + "9" * 9999 + "}"}, "t.jsonl", {}, ["line 1: not JSON"]),
    "json cut off": ({"t.json": '[{"text": "a",\n "label"'}, "t.json", {}, ["t.json, line 2, column", "not JSON"]),
    "json of something else": (
        {"t.json": '{"a": 1,\n "b": 2}'},
        "t.json",
        {},
        ["an object with 2 keys", "list of objects"],
    ),
    "json text is a list": (
        {"t.jsonl": '{"text": ["a"], "label": "x"}'},
        "t.jsonl",
        {},
        ["row 1", "'text' holds a list"],
    ),
    "json labels are lists": (
        {"t.jsonl": '{"text": "a", "label": ["x"]}\n{"text": "b", "label": "y"}'},
        "t.jsonl",
        {},
        ["row 2", "holds a text, and lists elsewhere"],
    ),
    "json label is an object": ({"t.jsonl": '{"text": "a", "label": {}}'}, "t.jsonl", {}, ["row 1", "an object"]),
    "lists and a delimiter": (lists, "t.parquet", {"label_delimiter": "|"}, ["lists already", "--label-delimiter"]),
    "one label in every list": (lists_of_one, "t.parquet", {}, ["one label only, 'x'"]),
    "no label in any list": (
        {"t.jsonl": '{"text": "a", "label": []}'},
        "t.jsonl",
        {"label_column": "label", "label_delimiter": None},
        ["no row of train has a label"],
    ),
    "empty name in a list": (
        {"t.jsonl": '{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["y", " "]}'},
        "t.jsonl",
        {},
        ["row 2", "an empty name"],
    ),
    "list in a list": ({"t.jsonl": '{"text": "a", "label": [["x"]]}'}, "t.jsonl", {}, ["row 1", "a list, not a label"]),
    "null in a list": ({"t.jsonl": '{"text": "a", "label": ["x", null]}'}, "t.jsonl", {}, ["row 1", "null, not"]),
    "id in a list out of range": (
        lists_of_ids,
        "t.parquet",
        {},
        ["t.parquet, row 2", "'7'", "2 class names", "0 to 1"],
    ),
    "unknown label in a list of test": (
        {
            "d/train.jsonl": '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}',
            "d/test.jsonl": '{"text": "a", "label": ["x"]}\n{"text": "c", "label": ["x", "z"]}',
        },
        "d",
        {},
        ["test.jsonl, row 2", "'z' of test", "does not occur in train"],
    ),
    "lists in train only": (
        {"d/train.jsonl": '{"text": "a", "label": ["x", "y"]}', "d/test.csv": "text,label\na,x\n"},
        "d",
        {},
        ["test.csv: column 'label' holds large_string, and lists elsewhere"],
    ),
    "two in a column of 0 and 1": (
        {"t.csv": "text,a,b\nx,0,1\ny,2,0\n"},
        "t.csv",
        {"label_columns": ("a", "b")},
        ["t.csv, row 2", "'a' holds '2'", "1 where a text has the label, else 0"],
    ),
    "nothing in a column of 0 and 1": (
        {"t.csv": "text,a,b\nx,0,1\ny,1,\n"},
        "t.csv",
        {"label_columns": ("a", "b")},
        ["t.csv, row 2", "'b' is empty"],
    ),
    "hidden in one column of 0 and 1": (
        {"t.csv": "text,a,b\nx,0,1\ny,1,-1\n"},
        "t.csv",
        {"label_columns": ("a", "b")},
        ["t.csv, row 2", "-1 in some"],
    ),
    "no such column of 0 and 1": (
        {"t.csv": "text,toxic,threat\nx,0,1\n"},
        "t.csv",
        {"label_columns": ("toxic", "treat")},
        ["no column 'treat'", "--label-columns", "did you mean 'threat'"],
    ),
    "labels with fractions": (floats, "t.parquet", {}, ["numbers with fractions"]),
    "labels with fractions in csv": ({"t.csv": "text,label\na,0.25\nb,1\n"}, "t.csv", {}, ["numbers with fractions"]),
    "labels are dates": (dates, "t.parquet", {}, ["holds date32", "--label-column"]),
    "texts are lists": (lists_as_texts, "t.parquet", {}, ["holds lists", "not texts"]),
    "class id out of range": (out_of_range, "t.parquet", {}, ["the id 7", "1 class names"]),
    "truncated parquet": (truncated_parquet, "t.parquet", {}, ["not a whole parquet file", "cut off"]),
    "not parquet": ({"t.parquet": GOOD}, "t.parquet", {}, ["not a whole parquet file"]),
    "not arrow": ({"t.arrow": GOOD}, "t.arrow", {}, ["not a whole arrow file"]),
    "not gzip": ({"t.csv.gz": GOOD}, "t.csv.gz", {}, ["not a whole gzip file", "only named .gz"]),
    "gzip cut off": ({"t.csv.gz": gzip.compress(os.urandom(9999))[:-99]}, "t.csv.gz", {}, ["not a whole gzip file"]),
    "gzip not named so": ({"t.csv": gzip.compress(GOOD.encode())}, "t.csv", {}, ["gzip-compressed", ".gz"]),
    "not zstd": ({"t.csv.zst": GOOD}, "t.csv.zst", {}, ["not a whole csv.zst file"]),
    "parquet named csv": ({"t.csv": b"PAR1...."}, "t.csv", {}, ["a parquet file"]),
    "folder without splits": (
        {"d/a.csv": GOOD, "d/b.csv": GOOD},
        "d",
        {},
        ["named as a split", "a.csv, b.csv", "train.csv"],
    ),
    "folder without data": ({"d/readme.md": "hi"}, "d", {}, ["holds no data file"]),
    "folder without train": ({"d/test.csv": GOOD}, "d", {}, ["no train split; it has test"]),
    "saved folder without its files": (
        {"d/state.json": '{"_data_files": [{"filename": "data.arrow"}]}', "d/dataset_info.json": "{}"},
        "d",
        {},
        ["data.arrow is missing"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_where_and_how_to_mend_it(tmp_path, case):
    content, dataset, settings, words = CASES[case]
    if callable(content):
        content(tmp_path)
    else:
        for name, data in content.items():
            write(tmp_path, name, data)
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / dataset, **settings)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert caught.value.exit_code == 3
    assert len(message) < 1000
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    "case", ["ragged", "broken json line", "truncated parquet", "unknown label in test", "not gzip"]
)
def test_command_line_reports_bad_data_without_traceback(tmp_path, cli, case):
    content, dataset, _, words = CASES[case]
    if callable(content):
        content(tmp_path)
    else:
        for name, data in content.items():
            write(tmp_path, name, data)
    finished = cli("prepare", "--dataset", tmp_path / dataset)
    assert finished.returncode == 3
    assert finished.stdout == ""
    assert finished.stderr.startswith("error: ")
    assert "Traceback" not in finished.stderr
    assert all(word in finished.stderr for word in words)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_says_so(tmp_path):
    write(tmp_path, "t.csv", GOOD)
    (tmp_path / "t.csv").chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        prepare(tmp_path / "t.csv")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        prepare(tmp_path / "t.csv")


def test_permission_error_is_translated(tmp_path, monkeypatch):
    write(tmp_path, "t.csv", GOOD)

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"t\.csv cannot be read: permission denied"):
        prepare(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bankng77", ["no file, folder or catalog name", "tweet_eval/hate", "did you mean banking77?"]),
        ("owner/unknown", ["HF_HUB_OFFLINE is set", "no copy of owner/unknown", "HF_ENDPOINT"]),
        ("tweet_eval/hate", ["no copy of cardiffnlp/tweet_eval hate"]),
    ],
)
def test_unreachable_hub_is_said_with_exit_code_5(tmp_path, cli, monkeypatch, name, words):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    finished = cli("prepare", "--dataset", name)
    assert finished.returncode == 5, finished.stderr
    assert [word for word in words if word not in finished.stderr] == [], finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("name", ["data.csv", "owner/data.parquet", "./owner", "/no/where", "a/b/c", "train.jsonl.gz"])
def test_what_looks_like_a_path_is_never_asked_of_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TextclfError, match="does not exist") as caught:
        prepare(name)
    assert not isinstance(caught.value, HubError)


def test_texts_are_never_part_of_a_message(tmp_path):
    secret = "what a person wrote in confidence"
    lines = [f"{secret} {i},{'ab'[i % 2]}" for i in range(40)] + [f"{secret},a", f"{secret},b", f"{secret} 3,a"]
    write(tmp_path, "t.csv", "text,label\n" + "\n".join(lines))
    prepared = prepare(tmp_path / "t.csv")
    assert prepared.findings
    assert secret not in repr((prepared.findings, prepared.steps, prepared.dropped))
    write(tmp_path, "t.csv", "text,label\n" + "\n".join([*lines, f"{secret},a,c"]))
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "t.csv")
    assert secret not in str(caught.value)
