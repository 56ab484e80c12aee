"""`prepare --corrections`: the reviewed rows of an audit, applied, recorded, and refused where they do not fit."""

from __future__ import annotations

import json

import pytest

import textclf
from textclf.data.corrections import DROP
from textclf.errors import DataError

TEXTS = [(f"text number {index}", "=sum" if index % 2 else "b,\\x") for index in range(40)]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f'{text},"{label}"\n' for text, label in TEXTS))
    return path


def review(tmp_path, *lines, header="file,row,text,label,correction"):
    path = tmp_path / "review.csv"
    path.write_text(header + "\n" + "".join(line + "\n" for line in lines))
    return path


def labels_by_row(prepared):
    return {
        row: label
        for split in prepared.splits
        for row, label in zip(
            prepared.rows(split).table.column("row").to_pylist(), prepared.rows(split).labels, strict=True
        )
    }


def test_reviewed_rows_are_relabelled_or_left_out(data, tmp_path):
    path = review(
        tmp_path, """t.csv,1,x,"b,\\x",'=sum""", f"t.csv,2,x,'=sum,{DROP}", "t.csv,3,x,whatever,", "t.csv,4,x,=sum,=sum"
    )
    before, after = textclf.prepare(data), textclf.prepare(data, corrections=str(path))
    expected = {**labels_by_row(before), 1: "=sum"}
    del expected[2]
    assert labels_by_row(after) == expected
    assert sum(after.splits.values()) == 39
    assert after.fingerprint != before.fingerprint
    applied = after.corrected
    assert (applied.file, applied.relabelled, applied.dropped, applied.unchanged) == ("review.csv", 1, 1, 1)
    assert any("1 row relabelled, 1 left out" in step for step in after.steps)
    again = textclf.prepare(data, corrections=str(path))
    assert again.from_cache and again.corrected == applied
    path.write_text(path.read_text().replace(DROP, ""))
    assert not textclf.prepare(data, corrections=str(path)).from_cache


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("t.csv,99,x,=sum,=sum", "t.csv, row 99 is not in the data"),
        ("u.csv,1,x,=sum,=sum", "u.csv, row 1 is not in the data"),
        (f"t.csv,2,x,other,{DROP}", "was audited with label 'other', and has '=sum' now"),
        ("t.csv,2,x,=sum,=smu", "no row of the data has the label '=smu'"),
        ("t.csv,two,x,=sum,=sum", "not the number of a row"),
        ("t.csv,99999999999999999999,x,=sum,=sum", "not the number of a row"),
        ("t.csv,2,x,=sum,", "corrects nothing"),
    ],
)
def test_a_review_that_does_not_fit_names_its_row(data, tmp_path, line, said):
    with pytest.raises(DataError) as caught:
        textclf.prepare(data, corrections=str(review(tmp_path, line)))
    assert said in caught.value.message and "review.csv" in caught.value.message and caught.value.hint


def test_two_verdicts_on_a_row_and_a_file_that_is_no_review(data, tmp_path):
    with pytest.raises(DataError, match=r"another correction of t\.csv, row 2"):
        textclf.prepare(data, corrections=str(review(tmp_path, "t.csv,2,x,=sum,(drop)", 't.csv,2,x,=sum,"b,\\x"')))
    with pytest.raises(DataError, match="no column 'file'"):
        textclf.prepare(data, corrections=str(data))
    with pytest.raises(DataError, match="cannot be read"):
        textclf.prepare(data, corrections=str(tmp_path / "none.csv"))


def test_several_labels_are_corrected_as_a_list(tmp_path):
    path = tmp_path / "m.jsonl"
    with path.open("w") as file:
        for index in range(40):
            print(json.dumps({"text": f"text {index}", "labels": [["a"], ["a", "b"], []][index % 3]}), file=file)
    lines = ('m.jsonl,1,x,"[""a""]","[""b"", ""a""]"', 'm.jsonl,2,x,"[""a"", ""b""]",[]', "m.jsonl,3,x,[],b")
    prepared = textclf.prepare(path, corrections=str(review(tmp_path, *lines)))
    found = labels_by_row(prepared)
    assert [set(found[row]) for row in (1, 2, 3)] == [{"a", "b"}, set(), {"b"}]


def test_several_labels_are_recognised_in_any_order(tmp_path):
    path = tmp_path / "m.jsonl"
    with path.open("w") as file:
        for index in range(40):
            print(json.dumps({"text": f"text {index}", "labels": [["b", "a"], ["a"]][index % 2]}), file=file)
    # The label set's order, in which audit writes them.
    found = labels_by_row(textclf.prepare(path, corrections=str(review(tmp_path, 'm.jsonl,1,x,"[""a"", ""b""]",b'))))
    assert found[1] == ("b",)
    with pytest.raises(DataError, match="was audited with label"):
        textclf.prepare(path, corrections=str(review(tmp_path, 'm.jsonl,1,x,"[""a""]",b')))


@pytest.mark.parametrize("several", [False, True])
def test_labels_that_are_gathered_are_recognised_under_their_new_name(tmp_path, several):
    path = tmp_path / "m.jsonl"
    names = ["rare" if index == 3 else "rarer" if index == 6 else "bc"[index % 2] for index in range(40)]
    with path.open("w") as file:
        for index, name in enumerate(names, 1):
            print(json.dumps({"text": f"text {index}", "label": ["a", name] if several else name}), file=file)
    settings = {"min_label_count": 5, "other_label": "other", "test_size": 0, "validation_size": 4}
    gathered, frequent = ('"[""a"", ""other""]"', '"[""a"", ""c""]"') if several else ("other", "c")
    path_of_review = str(review(tmp_path, f"m.jsonl,4,x,{gathered},b", f"m.jsonl,2,x,{frequent},other"))
    found = labels_by_row(textclf.prepare(path, corrections=path_of_review, **settings))
    expected = (("b",), ("other",), ("a", "other")) if several else ("b", "other", "other")
    assert (found[4], found[2], found[7]) == expected
