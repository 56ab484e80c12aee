"""Data sets that are large: prepared through files of the cache, into what they would become in memory."""

from __future__ import annotations

import csv
import dataclasses
import json
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import textclf
from textclf.data import mapped
from textclf.data.copies import find_copies
from textclf.data.labelled import read_labelled
from textclf.data.rows import codes, make_rows, number_strings
from textclf.errors import ResourceError

COLUMNS = ["text", "label", "other"]


def records(count: int) -> list[list[Any]]:
    """Rows with copies, near copies, empty texts, missing labels and letters of many alphabets."""
    chance = random.Random(0)
    words = [
        "card",
        "money",
        "naïve",
        "你好",
        "🙂",
        "TOP-UP",
        "where",
        "is",
        "5",
        "\u2028",
        '"so"',
        "a,b",
        "line\nbreak",
    ]
    made = [[" ".join(chance.choices(words, k=9)), chance.choice("abc"), str(place)] for place in range(count)]
    made += [[text.upper() + " !", label, "x"] for text, label, _ in made[:9]] + made[20:40]
    made += [["", "a", "x"], ["  ", "b", "x"], ["no label", "", "x"]]
    chance.shuffle(made)
    return made


def write(folder: Path, kind: str, rows: list[list[Any]]) -> Path:
    path = folder / f"set.{kind}"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    elif kind == "jsonl":
        lines = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        for place in range(0, len(lines), 7):
            lines[place]["late"] = place
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    else:
        table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)})
        parquet.write_table(table, path)
    return path


def prepare(home: Path, monkeypatch: pytest.MonkeyPatch, large: int, path: Path, **settings: Any) -> dict[str, Any]:
    monkeypatch.setenv("TEXTCLF_HOME", str(home))
    monkeypatch.setattr(mapped, "LARGE", large)
    prepared = textclf.prepare(path, **settings)
    told = {field.name: getattr(prepared, field.name) for field in dataclasses.fields(prepared)}
    del told["folder"]
    return told | {f"rows of {split}": prepared.rows(split).table.to_pydict() for split in prepared.splits}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "settings",
    [
        {"thorough": True},
        {"text_pair_column": "other", "drop_leaks": "train"},
        {"max_rows": 150, "balance": 40},
        {"min_label_count": 105, "other_label": "rest"},
    ],
)
def test_a_large_set_becomes_what_it_would_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, settings: dict[str, Any]
) -> None:
    path = write(tmp_path, kind, records(300))
    in_memory = prepare(tmp_path / "memory", monkeypatch, 1 << 40, path, **settings)
    from_files = prepare(tmp_path / "files", monkeypatch, 1, path, **settings)
    again = prepare(tmp_path / "files", monkeypatch, 1, path, **settings)
    assert in_memory == from_files
    assert again == in_memory | {"from_cache": True}
    assert {entry.name for entry in (tmp_path / "files" / "cache").iterdir()} == {"prepared"}  # nothing else is left


@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=3), max_size=60),
    st.integers(0, 400),
    st.data(),
)
def test_large_tables_are_changed_and_taken_as_small_ones(texts: list[str], large: int, data: st.DataObject) -> None:
    rows = make_rows(texts, ["a"] * len(texts), file="f.csv")
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), dtype=bool)
    places = sorted(data.draw(st.lists(st.integers(0, len(texts) - 1)))) if texts else []
    indices = np.array(places, dtype=np.int64)
    numbers = number_strings(rows.text_column)
    kept, taken = rows.keep(mask).texts, rows.take(indices).texts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "LARGE", large)
        patch.setattr(mapped, "PIECE", 20)
        assert rows.keep(mask).texts == kept
        assert rows.take(indices).texts == taken
        assert number_strings(rows.text_column).tolist() == numbers.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "parquet of few texts"])
def test_memory_of_preparing_does_not_grow_with_the_texts(tmp_path: Path, kind: str) -> None:
    program = (
        "import re, sys, threading, time\n"
        "import textclf\n"
        "from textclf.data import mapped\n"
        "mapped.LARGE = mapped.PIECE = 1 << 20\n"
        "peak, done = 0, False\n"
        "def watch():\n"
        "    global peak\n"
        "    while not done:\n"
        "        peak = max(peak, int(re.search(r'RssAnon:\\s+(\\d+)', open('/proc/self/status').read())[1]))\n"
        "        time.sleep(0.002)\n"
        "watching = threading.Thread(target=watch, daemon=True)\n"
        "watching.start()\n"
        "prepared = textclf.prepare(sys.argv[1])\n"
        "rows = sum(len(prepared.rows(split)) for split in prepared.splits)\n"
        "done = True\n"
        "watching.join()\n"
        "print(rows, peak)\n"
    )
    peaks = {}
    for characters in (800, 8000):
        chance = random.Random(0)
        rows = [[f"{chance.random()} " * (characters // 19), chance.choice("abc"), ""] for _ in range(8000)]
        if kind == "parquet of few texts":  # which it holds once each
            rows = [[rows[place % 90][0], "abc"[place % 3], ""] for place in range(len(rows))]
        path = write(tmp_path, kind.split()[0], rows)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
        read, peaks[characters] = map(int, done.stdout.split())
        assert read == len(rows)
    # 58 MB more of text.
    assert peaks[8000] < peaks[800] + 40 * 1024, peaks


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "csv", records(300))
    with small_files(), pytest.raises(ResourceError, match="the disk is full") as told:
        prepare(tmp_path / "home", monkeypatch, 1, path)
    assert "TEXTCLF_HOME" in (told.value.hint or "")
    assert not list((tmp_path / "home" / "cache").iterdir())


def test_a_cache_for_reading_only_is_enough_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "csv", records(300))
    told = read_labelled(path).texts
    monkeypatch.setenv("TEXTCLF_HOME", "/proc/nowhere")
    monkeypatch.setattr(mapped, "LARGE", 1)
    assert read_labelled(path).texts == told


def test_a_full_disk_is_told_of_a_prepared_set_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTCLF_HOME", str(tmp_path / "home"))
    prepared = textclf.prepare(write(tmp_path, "csv", records(300)))
    monkeypatch.setattr(mapped, "LARGE", 1)
    with small_files(), pytest.raises(ResourceError, match="the disk is full"):
        prepared.rows("train")


def test_few_rows_do_not_keep_the_file_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTCLF_HOME", str(tmp_path))
    monkeypatch.setattr(mapped, "LARGE", 1)
    texts = [text for text, *_ in records(300)]
    rows = make_rows(texts, ["a"] * len(texts), file="f.csv")
    rows = rows.keep(np.arange(len(texts)) > 0)
    assert held(tmp_path)
    monkeypatch.setattr(mapped, "LARGE", 1 << 40)
    rows = rows.take(np.arange(9))
    assert rows.texts == texts[1:10]
    assert not held(tmp_path)


def held(folder: Path) -> bool:
    return str(folder) in Path("/proc/self/maps").read_text()


def test_near_copies_are_those_of_the_source_however_its_rows_are_cut() -> None:
    chance = random.Random(0)
    words = "to my new postal address at once, as the old one was lost on the way home, and thank you for your help"
    texts = [f"please send card {place} {words}" for place in range(900)]
    source = make_rows(texts, ["a"] * len(texts), file="f.csv")
    (numbers,) = codes([source], "text")
    mask = np.array([chance.random() < 0.2 for _ in texts])
    cut = {"train": source.keep(~mask), "test": source.keep(mask)}
    whole = find_copies({"train": source}, {"train": numbers}, near=True)
    apart = find_copies(cut, {"train": numbers[~mask], "test": numbers[mask]}, near=True)
    assert whole.near is not None and len(whole.near) > 100
    assert apart.near is not None and apart.near.tolist() == whole.near.tolist()
    assert apart.loose["test"].tolist() == whole.loose["train"][mask].tolist()


@contextmanager
def small_files() -> Iterator[None]:
    """No file gets larger than 4 KB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
