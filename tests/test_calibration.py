"""Scores that mean what they say: the temperature, the curve of coverage, and models that may abstain."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plain_transformers
import textclf
import tiny_models
from textclf.abstention import abstain, as_points, coverage_curve, read_curve, threshold_for
from textclf.errors import ModelError, UsageError
from textclf.labels import LabelSet
from textclf.metrics import measure, reliability
from textclf.training.calibration import fit_temperature

Cli = Callable[..., subprocess.CompletedProcess[str]]
TEXTS = ["where is my card", "money refund charge fee", "hm"]
FAST: dict[str, Any] = {"epochs": 4, "learning_rate": 2e-3, "batch_size": 16, "precision": "fp32"}


@pytest.fixture(scope="module")
def trained(alone: None, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that errs, and too surely: every seventh label is another one. Without a graph."""
    folder = tmp_path_factory.mktemp("calibrated")
    rows = [(text, "abc"[number % 3] if number % 7 == 0 else label)
            for number, (text, label) in enumerate(tiny_models.rows(400, seed=1)[1:])]  # fmt: skip
    data = folder / "tickets.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textclf.model.exporting.MAX_BYTES", 0)
        textclf.finetune(tiny_base, data, out=folder / "run", **{**FAST, "epochs": 8, "interpolate": False})
    return folder / "run"


def logits_of(seed: int, *, rows: int, multi: bool, factor: float) -> tuple[np.ndarray, np.ndarray, LabelSet]:
    """Logits that were right about how sure they are, before they were multiplied by `factor`."""
    random = np.random.default_rng(seed)
    label_set = LabelSet(tuple("abcd"), "multi" if multi else "single")
    logits_NC = random.normal(size=(rows, 4)) * 2
    probs_NC = label_set.probabilities(logits_NC)
    if multi:
        targets = (random.random((rows, 4)) < probs_NC).astype(np.uint8)
    else:
        targets = (random.random((rows, 1)) > probs_NC.cumsum(axis=1)).sum(axis=1).clip(max=3)
    return targets, logits_NC * factor, label_set


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_what_made_logits_too_large_or_small(factor: float, multi: bool) -> None:
    targets, logits_NC, label_set = logits_of(0, rows=4000, multi=multi, factor=factor)
    found = fit_temperature(targets, logits_NC, label_set)
    assert found == pytest.approx(factor, rel=0.06)
    after = measure(targets, label_set.probabilities(logits_NC / found), label_set)
    assert after.ece < 0.03
    if factor != 1:
        before = measure(targets, label_set.probabilities(logits_NC), label_set)
        assert before.ece > 2 * after.ece and before.brier > after.brier and before.loss > after.loss


def test_a_few_right_answers_do_not_make_a_model_certain() -> None:
    targets = np.arange(20) % 2
    label_set = LabelSet(("a", "b"))
    logits_NC = np.eye(2)[targets] * 3
    probs_NC = label_set.probabilities(logits_NC / fit_temperature(targets, logits_NC, label_set))
    assert 0.9 < probs_NC.max() < 0.99


def test_bins_hold_every_row_once_and_make_up_the_calibration_error() -> None:
    for multi in (False, True):
        targets, logits_NC, label_set = logits_of(1, rows=300, multi=multi, factor=2)
        probs_NC = label_set.probabilities(logits_NC)
        bins = reliability(targets, probs_NC, label_set)
        rows = sum(one.rows for one in bins)
        assert rows == (1200 if multi else 300)
        assert all(one.low - 1e-6 <= one.confidence <= one.high + 1e-6 for one in bins)
        gap = sum(one.rows * abs(one.confidence - one.accuracy) for one in bins) / rows
        if multi:
            assert 0 < gap < 0.3
        assert measure(targets, probs_NC, label_set).ece == pytest.approx(gap, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=400), st.floats(0, 1))
@settings(max_examples=100)
def test_the_chosen_threshold_keeps_what_the_curve_promises(rows: list[tuple[int, bool]], target: float) -> None:
    confidence_N = np.array([score / 20 for score, _ in rows], dtype=np.float32)
    right_N = np.array([right for _, right in rows])
    curve = coverage_curve(confidence_N, right_N)
    assert read_curve(json.loads(json.dumps(as_points(curve))), where="here") == curve
    assert curve[0].coverage == 1 and curve[0].accuracy == pytest.approx(right_N.mean())
    for point in curve:
        found = abstain(confidence_N, right_N, point.threshold)
        assert (found.coverage, found.accuracy) == (pytest.approx(point.coverage), pytest.approx(point.accuracy))
    if max(point.accuracy for point in curve) < target:
        with pytest.raises(UsageError, match="no threshold reaches"):
            threshold_for(curve, target)
    else:
        chosen = threshold_for(curve, target)
        assert chosen.accuracy >= target
        assert all(point.coverage <= chosen.coverage for point in curve if point.accuracy >= target)


@pytest.mark.parametrize("broken", [[], [{"threshold": 2, "coverage": 1, "accuracy": 1}], [{}], 3, [[1, 2, 3]]])
def test_a_damaged_curve_is_an_error_of_the_model(broken: Any) -> None:
    with pytest.raises(ModelError, match="coverage curve"):
        read_curve(broken, where="here")


def test_every_tool_gives_the_calibrated_scores(trained: Path, home: Path) -> None:
    facts = json.loads((trained / "model" / "textclf.json").read_text())
    assert facts["calibration"]["temperature"] != pytest.approx(1, abs=0.02)
    before, after = facts["calibration"]["before"], facts["metrics"]
    # The fit doubts its targets a little, so on few rows the plain loss may be a hair higher than before.
    assert after["validation"]["loss"] < before["validation"]["loss"] + 0.01
    assert set(before["test"]) == {"loss", "ece", "brier"} and set(facts["intervals"]) == {"validation", "test"}
    ours = textclf.load(trained, runtime="torch").predict_proba(TEXTS)
    plain = plain_transformers.probabilities([trained / "model"], TEXTS, hub_cache=home / "hf")[0]
    assert np.allclose(ours, plain, atol=1e-5)
    report = textclf.evaluate(trained).as_dict()
    for name, value in after["test"].items():
        if isinstance(value, float):
            assert report["metrics"][name] == pytest.approx(value, abs=1e-4), name
    validation = textclf.evaluate(trained, split="validation").as_dict()
    ours, kept = validation["coverage"], facts["calibration"]["coverage"]
    assert len(ours) == len(kept)
    for one, other in zip(ours, kept, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_models_that_abstain_say_so_in_every_format(trained: Path, cli: Cli) -> None:
    probs = textclf.load(trained).predict_proba(TEXTS).max(axis=1)
    floor = float(np.median(probs)) - 1e-6
    silent = [score < floor for score in probs]
    assert sum(silent) == 1
    flags = ["predict", trained, "--abstain-below", repr(floor)]
    lines = [json.loads(line) for line in cli(*flags, "--format", "jsonl", input="\n".join(TEXTS)).stdout.splitlines()]
    assert [list(line) for line in lines] == [["text", "label", "score", "reason"]] * 3
    assert [line["label"] is None for line in lines] == silent
    assert [line["reason"] for line in lines] == [f"its score is below {floor:.4g}" if one else None for one in silent]
    document = json.loads(cli(*flags, "--json", input="\n".join(TEXTS)).stdout)
    assert document["predictions"] == lines
    cells = [line.split("\t") for line in cli(*flags, "--format", "tsv", input="\n".join(TEXTS)).stdout.splitlines()]
    assert [(cell[0] == "", cell[2] != "", cell[3]) for cell in cells] == [
        (one, one, text) for one, text in zip(silent, TEXTS, strict=True)
    ]
    table = list(csv.reader(io.StringIO(cli(*flags, "--format", "csv", input="\n".join(TEXTS)).stdout)))
    assert table[0] == ["label", "score", "reason", "text"] and [row[0] == "" for row in table[1:]] == silent
    shown = cli(*flags, "--format", "table", input="\n".join(TEXTS), env={"COLUMNS": "100"}).stdout
    assert shown.count("its score is below") == 1


def test_the_target_is_kept_on_validation_and_reported_on_test(trained: Path, cli: Cli) -> None:
    validation = textclf.evaluate(trained, split="validation")
    assert validation.coverage is not None
    target = (validation.metrics.right + max(point.accuracy for point in validation.coverage)) / 2
    found = json.loads(cli("eval", trained, "--split", "validation", "--target-accuracy", target, "--json").stdout)
    abstention = found["abstention"]
    assert abstention["target"] == pytest.approx(target) and abstention["accuracy"] >= target - 0.02
    assert 0 < abstention["coverage"] < 1 and abstention["low"] <= abstention["accuracy"] <= abstention["high"]
    shown = cli("eval", trained, "--target-accuracy", target)
    assert "accuracy aimed at" in shown.stdout and f"{abstention['threshold']:.4f}" in shown.stdout
    predicted = cli("predict", trained, "--target-accuracy", target, "--format", "jsonl", input="\n".join(TEXTS))
    said = [json.loads(line) for line in predicted.stdout.splitlines()]
    assert [one["label"] is None for one in said] == [one["score"] < abstention["threshold"] for one in said]
    assert f"{abstention['threshold']:.4f}" in predicted.stderr


def test_a_threshold_that_cannot_be_had_is_an_error(trained: Path, tiny_artifact: Path, cli: Cli) -> None:
    for flags, message in (
        (["--target-accuracy", "0.5", "--abstain-below", "0.5"], "both set the threshold"),
        (["--target-accuracy", "0.5", "--top-k", "2"], "--top-k does not go with"),
        (["--abstain-below", "0.5", "--threshold", "0.5"], "--threshold does not go with"),
        (["--target-accuracy", "1.5"], "--target-accuracy"),
    ):
        done = cli("predict", trained, *flags, input="x\n")
        assert done.returncode == 2 and message in done.stderr and done.stdout == "", flags
    done = cli("predict", tiny_artifact, "--target-accuracy", "0.5", input="x\n")
    assert done.returncode == 2 and "does not say how right it was on validation" in done.stderr
    with pytest.raises(UsageError, match="one label or none"):
        textclf.load(trained).predictions(["x"], top_k=2, abstain_below=0.5)


def test_the_library_gives_none_where_the_model_abstains(trained: Path) -> None:
    silent, loud = (next(iter(textclf.load(trained).predictions(["hm"], abstain_below=floor))) for floor in (1.0, 0.0))
    assert (silent.label, silent.labels, loud.abstained) == (None, (), None)
    assert silent.abstained == "its score is below 1" and silent.score == loud.score and loud.label in "abc"
