"""Cutting, sampling and dropping rows: fair, repeatable, and nothing lost without being counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textclf.data import cleaning, quality
from textclf.data.rows import codes, make_rows
from textclf.errors import DataError


def rows_of(pairs):
    return make_rows([text for text, _ in pairs], [label for _, label in pairs], file="f.csv")


def rng(seed=0):
    return np.random.default_rng(seed)


def pairs_of(rows):
    return list(zip(rows.texts, rows.labels, strict=True))


pairs = st.lists(st.tuples(st.integers(0, 25).map(str), st.sampled_from("abcd")), min_size=1, max_size=60)


@given(pairs=pairs, wanted=st.integers(1, 20), seed=st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_cut_keeps_copies_together_and_a_text_of_every_label(pairs, wanted, seed):
    rows = rows_of(pairs)
    try:
        rest, part = cleaning.cut(rows, wanted, rng(seed), split="validation")
    except DataError as err:
        assert "too few rows" in err.message
        return
    assert not set(rest.texts) & set(part.texts)
    assert set(rest.labels) == set(rows.labels)
    assert Counter(pairs_of(rest)) + Counter(pairs_of(part)) == Counter(pairs)
    assert 0 < len(part) <= wanted
    assert list(part.table["row"].to_pylist()) == sorted(part.table["row"].to_pylist())


def test_cut_is_stratified_exact_and_repeatable():
    rows = rows_of([(f"t{i}", "a" if i < 700 else "b" if i < 990 else "c") for i in range(1000)])
    rest, part = cleaning.cut(rows, 100, rng(), split="test")
    assert (len(rest), len(part)) == (900, 100)
    assert cleaning.label_counts(part) == {"a": 70, "b": 29, "c": 1}
    assert pairs_of(cleaning.cut(rows, 100, rng(), split="test")[1]) == pairs_of(part)
    assert pairs_of(cleaning.cut(rows, 100, rng(1), split="test")[1]) != pairs_of(part)


def test_singletons_stay_behind():
    rows = rows_of([(f"t{i}", f"lone {i}" if i < 50 else "ab"[i % 2]) for i in range(150)])
    _, part = cleaning.cut(rows, 40, rng(), split="validation")
    assert cleaning.label_counts(part) == {"a": 20, "b": 20}


def test_sample_is_drawn_from_the_whole_file_in_its_order():
    rows = rows_of([(f"t{i}", "a" if i < 500 else "b") for i in range(1000)])
    drawn = cleaning.sample(rows, 100, rng())
    assert min(cleaning.label_counts(drawn).values()) > 30
    assert drawn.table["row"].to_pylist() == sorted(drawn.table["row"].to_pylist())
    assert len(set(drawn.texts)) == 100
    assert cleaning.sample(rows, 1000, rng()) is rows


@pytest.mark.parametrize(
    ("size", "total", "rows"), [(0.1, 100, 10), (0.1, 3, 1), (50, 1000, 50), (0, 9, 0), (0.999, 10, 10)]
)
def test_size_is_a_share_or_a_number_of_rows(size, total, rows):
    assert cleaning.rows_wanted(size, total) == rows


def test_empty_means_missing_or_white_space_only():
    rows = rows_of([(None, "a"), ("", "a"), (" \t\n\u00a0", "a"), (".", "a"), ("\u200b", "a")])
    assert cleaning.empty(rows).tolist() == [True, True, True, False, False]
    assert cleaning.fill_empty(rows).texts[:3] == ["", "", " \t\n\u00a0"]


def numbers(*parts):
    columns = [codes(list(parts), name) for name in ("text", "label")]
    return list(zip(*columns, strict=True))


def test_overlap_finds_copies_and_those_under_another_label():
    train = rows_of([("x", "a"), ("y", "a"), ("y", "b"), ("z", "b")])
    other = rows_of([("new", "a"), ("x", "b"), ("y", "b"), ("x", "a"), ("X", "a")])
    found = quality.overlap(*numbers(train, other))
    assert found.shared.tolist() == [False, True, True, True, False]
    assert found.conflicting.tolist() == [False, True, False, False, False]


def test_overlap_by_pairs_of_near_texts():
    train = rows_of([("x", "a"), ("y", "b"), ("z", "b")])
    other = rows_of([("p", "a"), ("q", "a"), ("x", "a")])  # numbers 3, 4 and 0
    found = quality.overlap(*numbers(train, other), np.array([[0, 3], [1, 4], [2, 4], [3, 4]]))
    assert found.shared.tolist() == [True, True, False]
    assert found.conflicting.tolist() == [False, True, False]


def test_repeats_and_conflicts_in_train():
    texts_N, labels_N = numbers(rows_of([("x", "a"), ("y", "a"), ("y", "b"), ("x", "a"), ("z", "b")]))[0]
    assert quality.repeats(texts_N).tolist() == [False, False, True, True, False]
    assert quality.conflicts(texts_N, labels_N).tolist() == [False, True, True, False, False]


def test_lookalike_labels_differ_by_case_or_blanks():
    assert quality.lookalikes(["Spam", "spam ", "ham", "Ham!"]) == [("Spam", "spam ")]


def test_balance_leaves_absent_labels_out():
    assert quality.balance({"a": 6, "b": 2, "c": 0}, 8) == quality.Balance(8, 2, 2, 4.0, 6, 0.75)
    assert quality.balance({}, 0).rows == 0


def test_token_lengths_are_lengths_that_occur():
    lengths = np.arange(1, 101)
    assert quality.percentiles(lengths) == quality.Lengths(100, 51, 91, 96, 100, 100)
    assert quality.share_cut(lengths, 90) == 0.1
    assert quality.percentiles(np.array([], dtype=np.int64)).max == 0
