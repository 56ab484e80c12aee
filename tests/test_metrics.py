"""Metrics equal scikit-learn's own and say which labels they leave out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from textclf.labels import LabelSet
from textclf.metrics import confusions, measure, measure_labels


def _probs(decided: np.ndarray, labels: int) -> np.ndarray:
    probs = np.full((len(decided), labels), 0.1 / max(labels - 1, 1), dtype=np.float32)
    probs[np.arange(len(decided)), decided] = 0.9
    return probs


@given(st.integers(2, 5), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_metrics_are_scikit_learns(labels: int, pairs: list[tuple[int, int]]) -> None:
    targets = np.array([target % labels for target, _ in pairs])
    decided = np.array([answer % labels for _, answer in pairs])
    found = measure(targets, _probs(decided, labels), LabelSet(tuple("abcde"[:labels])))
    present = sorted(set(targets.tolist()))
    assert found.accuracy == pytest.approx(reference.accuracy_score(targets, decided))
    for name, function in (
        ("f1", reference.f1_score),
        ("precision", reference.precision_score),
        ("recall", reference.recall_score),
    ):
        macro = function(targets, decided, labels=present, average="macro", zero_division=0)
        weighted = function(targets, decided, average="weighted", zero_division=0)
        assert getattr(found, f"macro_{name}") == pytest.approx(macro)
        assert getattr(found, f"weighted_{name}") == pytest.approx(weighted)
    assert set(found.absent_labels) == {"abcde"[label] for label in range(labels) if label not in present}


def test_binary_ranking_metrics_need_both_labels() -> None:
    label_set = LabelSet(("no", "yes"))
    probs = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]], dtype=np.float32)
    targets = np.array([0, 0, 1, 1])
    found = measure(targets, probs, label_set)
    assert found.roc_auc == pytest.approx(reference.roc_auc_score(targets, probs[:, 1]))
    assert found.average_precision == pytest.approx(reference.average_precision_score(targets, probs[:, 1]))
    assert measure(np.zeros(4, dtype=int), probs, label_set).roc_auc is None


def test_loss_of_a_certain_mistake_is_finite() -> None:
    probs = np.array([[1.0, 0.0]], dtype=np.float32)
    assert np.isfinite(measure(np.array([1]), probs, LabelSet(("a", "b"))).loss)


def test_absent_labels_have_no_recall_and_unpredicted_ones_no_precision() -> None:
    rows = measure_labels(np.array([0, 0, 1]), _probs(np.array([0, 2, 0]), 3), LabelSet(("a", "b", "c")))
    assert [(row.support, row.predicted) for row in rows] == [(2, 2), (1, 0), (0, 1)]
    assert rows[1].precision is None and rows[1].recall == 0.0
    assert rows[2].recall is None and rows[2].f1 is None


def test_confusions_are_ranked_and_shared_by_true_label() -> None:
    pairs = confusions(np.array([0, 0, 0, 1, 1]), _probs(np.array([1, 1, 0, 0, 1]), 2), LabelSet(("a", "b")))
    assert [(pair.target, pair.predicted, pair.count, pair.share) for pair in pairs] == [
        ("a", "b", 2, pytest.approx(2 / 3)),
        ("b", "a", 1, 0.5),
    ]


@given(st.lists(st.lists(st.floats(-80, 80), min_size=3, max_size=3), min_size=1, max_size=20))
def test_probabilities_sum_to_one(logits: list[list[float]]) -> None:
    probs = LabelSet(("a", "b", "c")).probabilities(np.array(logits, dtype=np.float32))
    assert probs.dtype == np.float32
    assert np.allclose(probs.sum(axis=1), 1, atol=1e-6)
