"""Files of texts for predict: read block by block, with the texts and the errors of reading them whole."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
from hashlib import sha512
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from textclf.data import delimited, json_rows, mapped
from textclf.errors import DataError
from textclf.evaluation.exporting import export
from textclf.inference.reading import Wanted, file_windows

TEXTS = [
    "plain", "two\nlines", 'a "quoted" word', "comma, and\r\nreturn", "lone \r return", "", "  ", '5" screen', "NA",
    "null", "naïve 你好 🙂", "x" * 5000, "tab\there", "\u2028\u0085", "it's", '"', '""', ",",
] * 30  # fmt: skip


@pytest.fixture(params=[64, 1000, 1 << 22])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    small_blocks(monkeypatch, request.param)
    return int(request.param)


def small_blocks(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(delimited, "BLOCK", size)
    monkeypatch.setattr(json_rows, "BLOCK", size)
    monkeypatch.setattr(mapped, "ROWS", max(1, size // 64))


def as_csv(texts: list[str]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["label", "text"])
    writer.writerows(["a", text] for text in texts)
    return file.getvalue().encode()


def write(folder: Path, kind: str, texts: list[str]) -> Path:
    path = folder / f"t.{kind}"
    table = pa.table({"text": texts, "label": ["a"] * len(texts)})
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=100)
    elif kind == "arrow":
        with pa.ipc.new_file(path, table.schema) as out:
            out.write_table(table, max_chunksize=70)
    else:
        lines = "".join(json.dumps({"text": text, "label": 1}) + "\n" for text in texts).encode()
        data = as_csv(texts) if kind.startswith("csv") else lines
        path.write_bytes(gzip.compress(data) if kind.endswith(".gz") else data)
        if kind.endswith(".zst"):
            with pa.CompressedOutputStream(str(path), "zstd") as out:
                out.write(data)
    return path


def read(path: Path, **told: str) -> list[str]:
    return [text for window in file_windows([str(path)], Wanted(**told)) for text in window]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow"])
def test_every_text_is_read_in_order(tmp_path: Path, kind: str, block: int) -> None:
    assert read(write(tmp_path, kind, TEXTS)) == TEXTS


@given(
    texts=st.lists(st.text(st.sampled_from('ab ,;"\n\r\té'), max_size=12), min_size=1, max_size=30),
    size=st.integers(1, 40),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_of_any_size_end_where_records_end(tmp_path: Path, texts: list[str], size: int) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(as_csv(texts))
    whole = read(path)
    assert len(whole) == len(texts)
    with pytest.MonkeyPatch.context() as patched:
        # A first block holds at least the header, as 4 MB do.
        small_blocks(patched, size + 11)
        assert read(path) == whole


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("csv", b'b,"not closed\n', "row 901: a field begins with a double quote"),
        ("csv", b"b,two,three\n", "row 901: 3 fields where there are 2 columns"),
        ("csv", b"b,\xff\n", "line 902, byte"),
        ("jsonl", b'{"text": \n', "line 901: not JSON"),
        ("jsonl", b"[1]\n", "line 901: a list where an object should be"),
        ("jsonl", b'{"text": "\xff"}\n', "line 901, byte 11 of the line: not UTF-8"),
        ("jsonl", b'{"text": ["a"]}\n', "row 901: column 'text' holds a list"),
    ],
)
def test_errors_far_into_a_file_name_their_row_after_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, rows: bytes, message: str
) -> None:
    small_blocks(monkeypatch, 1000)
    path = write(tmp_path, kind, [f"text {number}" for number in range(900)])
    data = path.read_bytes() + rows
    path.write_bytes(data + data.split(b"\n", 1)[1])
    taken: list[str] = []
    with pytest.raises(DataError, match=message):
        for window in file_windows([str(path)]):
            taken += window
    assert taken[:800] == [f"text {number}" for number in range(800)]


def test_the_column_that_is_missing_is_told_before_any_text(tmp_path: Path) -> None:
    for kind in ("csv", "jsonl", "parquet", "arrow"):
        with pytest.raises(DataError, match="no column 'body'"):
            file_windows([str(write(tmp_path, kind, TEXTS))], Wanted(text_column="body"))


def test_the_column_that_training_data_had_is_taken_where_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,narrative,title,team\n1,long one,short,a\n")
    trained = Wanted(trained_on={"text": "narrative"})
    assert [*file_windows([str(path)], trained)] == [["long one"]]
    assert [*file_windows([str(path)], Wanted(text_column="title", trained_on=trained.trained_on))] == [["short"]]
    assert [*file_windows([str(path)], Wanted(trained_on={"text": "elsewhere"}))] == [["short"]]


def test_a_column_missing_from_later_rows_is_an_empty_text(tmp_path: Path, block: int) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n' * 50 + '{"other": 1}\n' * 50)
    assert read(path, text_column="text") == ["a"] * 50 + [""] * 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow", "txt"])
def test_memory_does_not_grow_with_rows(tmp_path: Path, kind: str) -> None:
    program = (
        "import sys\n"
        "from textclf.inference.reading import file_windows\n"
        "rows = sum(map(len, file_windows([sys.argv[1]])))\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(rows, peak.split()[1])\n"
    )
    peaks = {}
    for count in (100_000, 800_000):
        texts = [f"where is my card, and when will it arrive? {number}" for number in range(count)]
        path = tmp_path / f"t.{kind}"
        if kind == "txt":
            path.write_text("\n".join(texts) + "\n")
        elif kind == "parquet":
            # One group of rows that do not get small: it is not to be held whole.
            texts = [f"{sha512(text.encode()).hexdigest()} {text}" for text in texts]
            parquet.write_table(pa.table({"text": texts, "label": texts}), path, row_group_size=count)
        else:
            write(tmp_path, kind, texts)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
        rows, peaks[count] = map(int, done.stdout.split())
        assert rows == count
    if kind != "arrow":  # mapped pages count, though the system takes them back
        assert peaks[800_000] < 1.35 * peaks[100_000], peaks


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stdin", "csv", "parquet"])
def test_answers_to_many_rows_need_no_more_memory(tiny_artifact: Path, tmp_path: Path, kind: str) -> None:
    model = shutil.copytree(tiny_artifact, tmp_path / "model")
    export(model)
    program = (
        "import atexit, sys\n"
        "def peak():\n"
        "    print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr)\n"
        "atexit.register(peak)\n"
        "from textclf.cli.app import main\n"
        "main()\n"
    )
    peaks = {}
    for count in (40_000, 160_000):  # of which each fills what is held at a time
        texts = [f"where is my card, and when will it arrive? {number}" + 200 * " " for number in range(count)]
        words = [sys.executable, "-c", program, "predict", str(model), "--output", str(tmp_path / f"{count}.jsonl")]
        given = ""
        if kind == "stdin":
            given = "\n".join(texts) + "\n"
        elif kind == "csv":
            words.append(str(write(tmp_path, kind, texts)))
        else:
            parquet.write_table(
                pa.table({"text": texts, "label": texts}), tmp_path / "t.parquet", row_group_size=10_000
            )
            words.append(str(tmp_path / "t.parquet"))
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=True)
        peaks[count] = int(done.stderr.split("VmHWM:")[1].split()[0])
        with (tmp_path / f"{count}.jsonl").open(encoding="utf-8") as file:
            assert sum(1 for _ in file) == count
    assert peaks[160_000] < 1.13 * peaks[40_000], peaks
