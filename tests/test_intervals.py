"""Intervals of metrics: drawn from the same sums as the metrics, and as wide as they say."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from textclf.answers import Answers
from textclf.intervals import Statistics, calibration_interval, intervals, weights
from textclf.labels import LabelSet
from textclf.metrics import label_ranking, measure


def answered(seed: int, *, labels: int, rows: int, multi: bool = False, skill: float = 2.0) -> Answers:
    """Random answers that are better than chance; probabilities of two digits, so that some are equal."""
    random = np.random.default_rng(seed)
    label_set = LabelSet(tuple(f"label {number}" for number in range(labels)), "multi" if multi else "single")
    targets = (random.random((rows, labels)) < 0.3).astype(np.uint8) if multi else random.integers(0, labels, rows)
    truth_NC = targets if multi else np.eye(labels)[targets]
    logits_NC = random.normal(size=(rows, labels)) + skill * truth_NC
    probs_NC = label_set.probabilities(logits_NC.astype(np.float32)).round(2)
    return Answers(targets=targets, probs_NC=probs_NC, label_set=label_set)


@given(st.integers(0, 99), st.integers(2, 6), st.integers(1, 40), st.booleans())
@settings(max_examples=60)
def test_with_every_row_counted_once_the_sums_give_the_metrics(seed: int, labels: int, rows: int, multi: bool) -> None:
    made = answered(seed, labels=labels, rows=rows, multi=multi)
    metrics = measure(made.targets, made.probs_NC, made.label_set).as_dict()
    found = Statistics(made).under(np.ones((1, rows)))
    for name, values_D in found.items():
        if metrics[name] is not None:
            assert values_D[0] == pytest.approx(metrics[name], abs=1e-9), name
    described = {"rows", "absent_labels", "question_accuracy", "labels_per_text", "predicted_per_text"}
    assert set(found) | described >= {name for name, value in metrics.items() if value is not None}


@given(st.integers(0, 99), st.integers(2, 5))
@settings(max_examples=30)
def test_a_row_that_counts_twice_is_as_two_rows(seed: int, labels: int) -> None:
    made = answered(seed, labels=labels, rows=30)
    weights_DN = next(weights(made, draws=1, seed=seed))
    drawn = np.repeat(np.arange(30), weights_DN[0].astype(int))
    metrics = measure(made.targets[drawn], made.probs_NC[drawn], made.label_set).as_dict()
    for name, values_D in Statistics(made).under(weights_DN).items():
        if metrics[name] is not None:
            assert values_D[0] == pytest.approx(metrics[name], abs=1e-9), name


@given(st.integers(0, 99), st.integers(2, 7))
@settings(max_examples=40)
def test_label_ranking_is_scikit_learns(seed: int, labels: int) -> None:
    made = answered(seed, labels=labels, rows=20, multi=True)
    found = label_ranking(made.targets, made.probs_NC)
    for name, function in (
        ("lrap", reference.label_ranking_average_precision_score),
        ("ranking_loss", reference.label_ranking_loss),
        ("coverage_error", reference.coverage_error),
    ):
        assert found[name].mean() == pytest.approx(function(made.targets, made.probs_NC)), name


def test_rows_are_drawn_without_regard_to_labels() -> None:
    targets = np.repeat([0, 1], [80, 3])
    label_set = LabelSet(("a", "b"))
    made = Answers(targets=targets, probs_NC=np.eye(2, dtype=np.float32)[targets], label_set=label_set)
    (weights_DN,) = weights(made, draws=2000, seed=0)
    assert (weights_DN.sum(axis=1) == 83).all()
    rare_D = weights_DN[:, targets == 1].sum(axis=1)
    assert rare_D.mean() == pytest.approx(3, abs=0.2) and rare_D.std() == pytest.approx(np.sqrt(3), abs=0.2)


@given(st.integers(0, 99), st.integers(1, 30), st.floats(0, 1))
@settings(max_examples=30)
def test_the_interval_of_the_calibration_error_holds_it_and_stays_in_range(seed: int, rows: int, size: float) -> None:
    random = np.random.default_rng(seed)
    gaps_B = random.normal(size=15) * size / 15
    drawn_DB = gaps_B + random.normal(size=(200, 15)) / 15 / rows
    low, high = calibration_interval(gaps_B, drawn_DB)
    assert 0 <= low <= np.abs(gaps_B).sum() + 1e-12 and min(np.abs(gaps_B).sum(), 1) - 1e-12 <= high <= 1


def test_a_calibrated_model_is_not_said_to_be_off() -> None:
    """The error of 300 rows is 0.05 by chance alone."""
    random, label_set, held = np.random.default_rng(0), LabelSet(("a", "b")), 0
    for _ in range(40):
        sure_N = random.uniform(0.5, 1, 300)
        targets = (random.random(300) > sure_N).astype(np.int64)
        probs_NC = np.stack([sure_N, 1 - sure_N], axis=1).astype(np.float32)
        made = Answers(targets=targets, probs_NC=probs_NC, label_set=label_set)
        metrics = measure(targets, probs_NC, label_set)
        assert metrics.ece > 0.01
        held += intervals(made, metrics, draws=200)["ece"].low < 0.005
    assert held >= 36


def test_rows_of_one_question_are_drawn_together() -> None:
    question_N = np.repeat(np.arange(30), 4)
    targets = (np.arange(120) % 4 == 0).astype(np.int64)
    probs_NC = np.random.default_rng(0).dirichlet((1, 1), 120).astype(np.float32)
    right_Q = np.arange(30) % 3 == 0
    label_set = LabelSet(("incorrect", "correct"))
    made = Answers(targets=targets, probs_NC=probs_NC, label_set=label_set, question_N=question_N, right_Q=right_Q)
    (weights_DN,) = weights(made, draws=50, seed=0)
    assert (weights_DN.reshape(50, 30, 4) == weights_DN.reshape(50, 30, 4)[:, :, :1]).all()
    assert np.allclose(
        Statistics(made).under(weights_DN)["question_accuracy"],
        (weights_DN.reshape(50, 30, 4)[:, :, 0] * right_Q).sum(axis=1) / 30,
    )


def test_equal_seeds_give_equal_intervals_that_hold_the_metric() -> None:
    made = answered(3, labels=3, rows=200)
    metrics = measure(made.targets, made.probs_NC, made.label_set)
    found = intervals(made, metrics)
    assert found == intervals(made, metrics) != intervals(made, metrics, seed=1)
    for name, one in found.items():
        assert one.low <= metrics.as_dict()[name] <= one.high, name
        assert one.low < one.high, name


def test_a_flawless_split_is_not_said_to_be_certain() -> None:
    targets = np.arange(40) % 2
    label_set = LabelSet(("a", "b"))
    made = Answers(targets=targets, probs_NC=np.eye(2, dtype=np.float32)[targets], label_set=label_set)
    found = intervals(made, measure(targets, made.probs_NC, label_set))
    assert found["accuracy"].low == pytest.approx(0.912, abs=1e-3) and found["accuracy"].high == 1


def test_the_interval_of_a_mean_near_its_end_is_scipys_accelerated_one() -> None:
    made = answered(5, labels=2, rows=400, multi=True)
    metrics = measure(made.targets, made.probs_NC, made.label_set)
    of_rows = label_ranking(made.targets, made.probs_NC)["lrap"]
    theirs = stats.bootstrap((of_rows,), np.mean, n_resamples=20000, method="BCa", rng=0).confidence_interval
    ours = intervals(made, metrics, draws=20000)["lrap"]
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    """Some of the 1,000 samples that docs/explanation/accuracy-honesty.md reports on."""
    random = np.random.default_rng(1)
    label_set = LabelSet(tuple("abcd"))
    answers_CC = np.full((4, 4), 0.08) + np.eye(4) * 0.68
    share_C = np.array([0.4, 0.3, 0.2, 0.1])

    def sample(rows: int) -> Answers:
        targets = np.repeat(np.arange(4), (share_C * rows).astype(int))
        decided = (random.random((len(targets), 1)) > answers_CC.cumsum(axis=1)[targets]).sum(axis=1)
        return Answers(targets=targets, probs_NC=np.eye(4, dtype=np.float32)[decided], label_set=label_set)

    def metrics(made: Answers) -> dict[str, float]:
        return measure(made.targets, made.probs_NC, label_set).as_dict()

    truth = metrics(sample(400_000))
    held = dict.fromkeys(("accuracy", "macro_f1", "mcc"), 0)
    for _ in range(200):
        made = sample(300)
        found = intervals(made, measure(made.targets, made.probs_NC, label_set), draws=300)
        for name in held:
            held[name] += found[name].low <= truth[name] <= found[name].high
    assert all(180 <= count <= 199 for count in held.values()), held


def test_a_thousand_draws_of_banking77s_size_take_under_a_second() -> None:
    made = answered(0, labels=77, rows=3080, skill=4)
    metrics = measure(made.targets, made.probs_NC, made.label_set)
    started = time.process_time()
    intervals(made, metrics)
    assert time.process_time() - started < 2
