"""Runtimes that round: what lies close to another answer is computed again, and nothing else is."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textclf
import tiny_models
from textclf.artifact import folder
from textclf.data.encoding import Encoded
from textclf.evaluation.exporting import export
from textclf.inference.rechecking import Rechecked
from textclf.inference.runtimes import ROUNDED
from textclf.labels import LabelSet

NAMES = ("a", "b", "c", "d")


class Known:
    """A runtime whose logits are known beforehand: those of the first token's place in a table."""

    def __init__(self, table_VC: np.ndarray) -> None:
        self.table_VC = table_VC
        self.asked: list[list[int]] = []

    def logits(self, encoded: Encoded, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        rows = [int(encoded.row(row)[0]) for row in range(len(encoded))]
        self.asked.append(rows)
        return self.table_VC[rows].astype(np.float32)


def encoded_of(rows: int, windows: list[int] | None = None) -> Encoded:
    text = None if windows is None else np.repeat(np.arange(len(windows)), windows)
    return Encoded(np.arange(rows, dtype=np.int32), np.arange(rows + 1), np.zeros(rows, dtype=bool), text=text)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.02, 0.2, 1.0]), st.booleans())
def test_rounding_by_less_than_half_of_the_margin_changes_no_answer(
    seed: int, multi: bool, margin: float, cut: bool
) -> None:
    rng = np.random.default_rng(seed)
    label_set = LabelSet(NAMES, "multi", (0.5, 0.3, 0.2, 0.9)) if multi else LabelSet(NAMES)
    windows = rng.integers(1, 4, 30).tolist() if cut else None
    rows = sum(windows) if windows else 60
    exact_RC = rng.normal(0, 2, (rows, 4))
    # The difference of two logits moves by twice what each does.
    rounded_RC = exact_RC + rng.uniform(-1, 1, exact_RC.shape) * margin * (0.98 if multi else 0.49)
    exact = Known(exact_RC)
    encoded = encoded_of(rows, windows)
    found_RC = Rechecked(Known(rounded_RC), exact, label_set, margin=margin).logits(encoded)
    assert found_RC.dtype == np.float32
    probs_NC, wanted_NC = (label_set.probabilities(encoded.per_text(one)) for one in (found_RC, exact_RC))
    assert np.array_equal(label_set.decide(probs_NC), label_set.decide(wanted_NC))
    near_N = label_set.margins(encoded.per_text(rounded_RC.astype(np.float32))) < margin
    assert exact.asked == ([encoded.rows_of(np.flatnonzero(near_N)).tolist()] if near_N.any() else [])


def test_margins_are_leads_and_distances_from_thresholds() -> None:
    logits_NC = np.array([[-1, 3, 1, 0], [2, 2, 2, 2]], dtype=np.float32)
    assert LabelSet(NAMES).margins(logits_NC) == pytest.approx([2, 0])
    assert LabelSet(("one",)).margins(np.ones((2, 1), dtype=np.float32)).tolist() == [np.inf] * 2
    floors = (0.5, 0.9, 0.01, 1.0)
    needed = [0, np.log(9), np.log(1 / 99)]
    multi = LabelSet(NAMES, "multi", floors)
    assert multi.margins(logits_NC) == pytest.approx([3 - needed[1], needed[1] - 2], abs=1e-5)
    sure_NC = np.full((1, 4), -12, dtype=np.float32)
    assert multi.margins(sure_NC) > 5, "a label that is surely absent is not close, however low its threshold"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_left_for_the_message(value: float) -> None:
    table_VC = np.full((3, 4), value)
    exact = Known(table_VC)
    found = Rechecked(Known(table_VC), exact, LabelSet(NAMES), margin=1.0).logits(encoded_of(3))
    assert not np.isfinite(found).any() and not exact.asked


@pytest.mark.parametrize("runtime", ROUNDED)
def test_close_answers_are_those_of_fp32(runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if runtime == "openvino":
        openvino = pytest.importorskip("openvino")
        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            pytest.skip("this CPU has no bf16, and OpenVINO then does not round")
    place = tiny_models.artifact(tmp_path / "tiny")
    data = tmp_path / "labelled.csv"
    rows = tiny_models.rows(60, seed=3)
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    export(place, int8=True, dataset=data, split="train", force=True)
    texts = [text for text, _ in rows]
    exact_NC = textclf.load(place, runtime="onnx").predict_proba(texts)
    monkeypatch.setitem(ROUNDED, runtime, 0.0)
    rough_NC = textclf.load(place, runtime=runtime).predict_proba(texts)
    assert (np.abs(rough_NC - exact_NC).max(axis=1) > 1e-5).mean() > 0.9, "it rounds"
    margin_N = folder.read(place).label_set.margins(np.log(rough_NC))
    middle = float(np.median(margin_N))
    monkeypatch.setitem(ROUNDED, runtime, middle)
    found_NC = textclf.load(place, runtime=runtime).predict_proba(texts)
    near_N = margin_N < middle
    assert 20 < near_N.sum() < 40
    assert np.abs(found_NC - exact_NC)[near_N].max() < 1e-5
    assert np.abs(found_NC - rough_NC)[~near_N].max() < 1e-5


def test_without_a_graph_bf16_has_nothing_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tiny_models.artifact(tmp_path / "tiny")
    texts = [text for text, _ in tiny_models.rows(20, seed=3)]
    before = textclf.load(place, runtime="bf16", device="cpu").predict_proba(texts)
    export(place)
    shutil.rmtree(place / "onnx")
    assert np.array_equal(textclf.load(place, runtime="bf16", device="cpu").predict_proba(texts), before)
    assert np.abs(textclf.load(place, runtime="torch", device="cpu").predict_proba(texts) - before).max() > 1e-5
