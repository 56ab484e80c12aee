"""The data set that is shipped: as large as it says, without copies, and nobody else's."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from textclf import presets

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    with presets.dataset_path("quickstart").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _folded(text: str) -> str:
    """Letters and digits alone, so that case, punctuation and accents make no other text."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c if c.isalnum() else " " for c in plain if not unicodedata.combining(c)).split())


def test_it_has_twelve_intents_of_equal_size(rows: Rows) -> None:
    counts = Counter(row["label"] for row in rows)
    assert len(rows) == 408
    assert len(counts) == 12
    assert set(counts.values()) == {34}
    assert all(set(row) == {"text", "label"} for row in rows)


def test_texts_are_clean_and_vary(rows: Rows) -> None:
    texts = [row["text"] for row in rows]
    assert all(text == text.strip() and text and text.isprintable() for text in texts)
    lengths = sorted(len(text) for text in texts)
    assert lengths[0] < 15 and lengths[-1] > 200
    assert 50 < sum(text[0].islower() for text in texts) < 250
    assert sum(any(c.isdigit() for c in text) for text in texts) > 50


def test_rows_are_shuffled(rows: Rows) -> None:
    labels = [row["label"] for row in rows]
    alike = sum(a == b for a, b in pairwise(labels))
    assert alike < 80  # about 34 by chance, 396 when grouped by label


def test_no_text_is_there_twice(rows: Rows) -> None:
    folded = Counter(_folded(row["text"]) for row in rows)
    assert [text for text, times in folded.items() if times > 1] == []


def test_no_two_texts_are_near_copies(rows: Rows) -> None:
    words = [(set(_folded(row["text"]).split()), row["text"]) for row in rows]
    near = [(one, other) for (a, one), (b, other) in combinations(words, 2) if len(a & b) >= 0.6 * len(a | b)]
    assert near == []


@pytest.mark.parametrize("name", ["banking77", "nlupp", "tweet_eval_emotion", "tweet_eval_irony", "tweet_eval_hate"])
def test_no_text_is_from_another_data_set(rows: Rows, shared_data: Path, name: str) -> None:
    ours = {_folded(row["text"]) for row in rows}
    files = sorted((shared_data / name).rglob("*.parquet"))
    assert files
    for file in files:
        theirs = {_folded(text) for text in pq.read_table(file, columns=["text"])["text"].to_pylist()}
        copies = len(ours & theirs)  # counted before the assert, which would quote texts, and some sets are hateful
        assert copies == 0, f"{copies} texts are in {file.name} too"
