"""Texts out of scope: what tells them, from the logits of any runtime, and what is said of it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import textclf
from textclf import presets
from textclf.artifact import folder
from textclf.errors import DataError, ModelError, UsageError
from textclf.evaluation.evaluation import own_rows
from textclf.scope import area, area_interval, energy, in_scope, measure_scope, read_scale, scale_of

Cli = Callable[..., subprocess.CompletedProcess[str]]
FOREIGN = [
    "translate good morning into Spanish", "Who won the election in 1960?", "My dog will not eat his food",
    "How do I prove that a group is abelian?", "A theorem of Noether ties symmetries to conserved quantities.",
    "Two goals in the last minute won the match.", "Dinosaurs died out sixty-six million years ago.",
    "I love this song", "The novel is told by a cat.", "the weather is nice today",
]  # fmt: skip
OWN, OWN_LABEL = "my parcel arrived with a broken screen", "delivery_damaged"


@pytest.fixture(scope="module")
def trained(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe of textclf-mini with its graph, and beside it `mixed.csv`: texts of its own kind and foreign ones."""
    place = tmp_path_factory.mktemp("scope")
    rows = _read(Path(presets.__file__).parent / "quickstart.csv")
    _write(place / "tickets.csv", [row for number, row in enumerate(rows) if number % 4])
    _write(place / "mixed.csv", [*rows[::4], *((text, "elsewhere") for text in FOREIGN)])
    textclf.finetune(dataset=place / "tickets.csv", out=place / "run", epochs=0.0, baselines=False, test_size=0)
    return place


def _read(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60), st.lists(st.floats(-60, 60), max_size=20))
@settings(max_examples=60)
def test_the_scale_is_the_share_of_validation(values: list[float], texts: list[float]) -> None:
    scale = read_scale(json.loads(json.dumps(scale_of(np.array(values)))), where="here")
    shares_N = in_scope(np.array(texts), scale)
    assert ((shares_N >= 0) & (shares_N <= 1)).all()
    order = np.argsort(texts)
    assert (np.diff(shares_N[order]) >= 0).all(), "a higher energy is never less in scope"
    spread = max(values) - min(values)
    if len(set(values)) == len(values) and spread > 1:
        for text, share in zip(texts, shares_N, strict=True):
            below = sum(one <= text for one in values)
            assert abs(share * (len(values) - 1) - (below - 1)) < 2 or below in (0, len(values))


def test_energy_is_that_of_liu() -> None:
    logits_NC = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32) * 30
    assert energy(logits_NC) == pytest.approx(np.log(np.exp(logits_NC.astype(np.float64)).sum(axis=1)))
    assert energy(np.full((1, 3), 1e4, dtype=np.float32)) == pytest.approx(1e4 + np.log(3))


@pytest.mark.parametrize("document", [None, [], [1.0], "abc", [2.0, 1.0], [0.0, float("nan")], [[0.0, 1.0]], {"a": 1}])
def test_a_damaged_scale_is_an_error(document: object) -> None:
    with pytest.raises(ModelError, match="the scope in textclf"):
        read_scale(document, where="here")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.lists(st.integers(0, 9), min_size=1, max_size=40))
@settings(max_examples=60)
def test_the_area_is_scikit_learns(inside: list[int], outside: list[int]) -> None:
    found = area(np.array(inside), np.array(outside))
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    assert found == pytest.approx(roc_auc_score(truth, [*inside, *outside]))
    low, high = area_interval(found, len(inside), len(outside))
    assert 0 <= low <= found + 1e-9 and found - 1e-9 <= high <= 1
    assert low < high, "not even a flawless split is certain"


@pytest.mark.parametrize("apart", [0.5, 2.0])
def test_the_interval_of_the_area_holds_the_truth(apart: float) -> None:
    from scipy.stats import norm

    random, truth = np.random.default_rng(1), norm.cdf(apart / np.sqrt(2))
    held = 0
    for _ in range(300):
        found = area(random.normal(apart, 1, 150), random.normal(0, 1, 60))
        low, high = area_interval(found, 150, 60)
        held += low <= truth <= high
    assert held / 300 >= 0.93


def test_a_report_counts_what_is_kept_and_refused() -> None:
    scale = np.linspace(0, 10, 11)
    report = measure_scope(
        np.array([0.5, 4, 6, 9.0]), np.array([False, True, True, False]), np.array([-3, 0.2, 8]), scale,
        label="x", threshold=0.1,
    )  # fmt: skip
    assert report.asked is not None
    assert (report.asked.answered, report.asked.refused) == (0.75, pytest.approx(2 / 3))
    assert report.asked.accuracy == pytest.approx(2 / 3)
    assert report.auroc == pytest.approx(9 / 12) and report.fpr95 == pytest.approx(1 / 3)
    alone = measure_scope(np.ones(3), np.ones(3, dtype=bool), np.zeros(0), scale)
    assert alone.auroc is None and alone.points[0].refused is None


def test_the_model_folder_knows_its_validation_texts(trained: Path) -> None:
    artifact = folder.read(trained / "run" / "model")
    assert artifact.facts is not None
    rows, *_ = own_rows(artifact, "validation")
    predictor = textclf.load(trained / "run")
    found = [one.in_scope for one in predictor.predictions(rows.text_column.to_pylist(), out_of_scope=0)]
    # Each stands at its own rank among themselves.
    assert sorted(one for one in found if one is not None) == pytest.approx(np.linspace(0, 1, len(found)), abs=0.01)


def test_predict_refuses_what_is_out_of_scope_and_says_so(trained: Path, cli: Cli) -> None:
    texts = f"{OWN}\n{FOREIGN[0]}\n"
    arguments = ("predict", trained / "run", "--out-of-scope", "0.1")
    done = cli(*arguments, "--format", "jsonl", input=texts)
    assert done.returncode == 0, done.stderr
    own, foreign = map(json.loads, done.stdout.splitlines())
    assert list(own) == ["text", "label", "score", "reason", "in_scope"]
    assert own["label"] == OWN_LABEL and own["reason"] is None and own["in_scope"] >= 0.1
    assert foreign["label"] is None and foreign["in_scope"] < 0.1
    assert foreign["reason"] == "out of scope (below 0.1)"
    cells = [line.split("\t") for line in cli(*arguments, input=texts).stdout.splitlines()]
    assert cells[1][0] == "" and cells[1][2:] == [
        "out of scope (below 0.1)",
        f"{foreign['in_scope']:.4g}",
        foreign["text"],
    ]
    table = list(csv.DictReader(io.StringIO(cli(*arguments, "--format", "csv", input=texts).stdout)))
    assert list(table[0]) == ["label", "score", "reason", "in_scope", "text"]
    assert "out of scope" in cli(*arguments, "--format", "table", input=texts).stdout
    # 0 refuses nothing, and goes with abstention.
    only = cli(
        "predict", trained / "run", "--out-of-scope", "0", "--abstain-below", "1", "--format", "jsonl", input=texts
    )
    said = [json.loads(line) for line in only.stdout.splitlines()]
    assert [one["reason"] for one in said] == ["its score is below 1"] * 2
    assert [one["in_scope"] for one in said] == [own["in_scope"], foreign["in_scope"]]


def test_every_runtime_tells_it_alike(trained: Path, unchecked: None) -> None:
    texts = [OWN, *FOREIGN] + [text for text, _ in _read(trained / "mixed.csv")][:60]
    textclf.export(trained / "run", int8=True, force=True)
    found = {
        runtime: np.array([
            one.in_scope for one in textclf.load(trained / "run", runtime=runtime).predictions(texts, out_of_scope=0)
        ])
        for runtime in ("torch", "onnx", "int8", "bf16")
    }  # fmt: skip
    assert found["onnx"] == pytest.approx(found["torch"], abs=1e-3)
    for runtime in ("int8", "bf16"):
        assert float(np.abs(found[runtime] - found["torch"]).mean()) < 0.05


def test_eval_says_how_well_they_are_told(trained: Path, cli: Cli) -> None:
    arguments = ("eval", trained / "run", "--dataset", trained / "mixed.csv", "--out-of-scope-label", "elsewhere")
    done = cli(*arguments, "--out-of-scope", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    scope = report["scope"]
    rows = _read(trained / "mixed.csv")
    assert (scope["label"], scope["rows"], scope["outside"]) == ("elsewhere", len(rows) - 10, 10)
    assert report["metrics"]["rows"] == len(rows) - 10
    predictor = textclf.load(trained / "run")
    found = list(predictor.predictions([text for text, _ in rows], out_of_scope=0.1))
    kept = [one.abstained is None for one in found]
    right = [one.label == label for one, (_, label) in zip(found, rows, strict=True)]
    assert scope["low"] < scope["auroc"] < scope["high"] and scope["auroc"] > 0.8
    assert scope["asked"]["refused"] == pytest.approx(1 - np.mean(kept[-10:]))
    assert scope["asked"]["answered"] == pytest.approx(np.mean(kept[:-10]))
    assert scope["asked"]["accuracy"] == pytest.approx(sum(right[:-10]) / sum(kept[:-10]))
    shown = cli(*arguments)
    assert shown.returncode == 0 and "ROC-AUC" in shown.stdout and "refused out of scope" in shown.stdout
    # Without texts out of scope there is still what the threshold costs.
    own = json.loads(cli("eval", trained / "run", "--out-of-scope", "0.05", "--json").stdout)
    assert own["scope"]["auroc"] is None and 0.7 <= own["scope"]["asked"]["answered"] <= 1
    assert json.loads(cli("eval", trained / "run", "--json").stdout)["scope"] is None


def test_what_has_no_scope_is_an_error(trained: Path, tiny_artifact: Path, cli: Cli, tmp_path: Path) -> None:
    data = trained / "mixed.csv"
    with pytest.raises(UsageError, match="the model gives this label itself"):
        textclf.evaluate(trained / "run", dataset=data, out_of_scope_label=OWN_LABEL)
    with pytest.raises(DataError, match="none has the label 'nowhere'"):
        textclf.evaluate(trained / "run", dataset=data, out_of_scope_label="nowhere")
    with pytest.raises(DataError, match="label 'elsewhere' is not among"):
        textclf.evaluate(trained / "run", dataset=data)
    alone = tmp_path / "foreign.csv"
    alone.write_text("text,label\n" + "".join(f"{text},elsewhere\n" for text in FOREIGN))
    with pytest.raises(DataError, match="and none is in scope"):
        textclf.evaluate(trained / "run", dataset=alone, out_of_scope_label="elsewhere")
    done = cli("predict", tiny_artifact, "--out-of-scope", "0.05", input="x")
    assert done.returncode == 2 and "does not say what texts in its scope look like" in done.stderr
    done = cli("predict", trained / "run", "--out-of-scope", "0.05", "--top-k", "2", input="x")
    assert done.returncode == 2 and "--top-k does not go with" in done.stderr
    assert cli("predict", trained / "run", "--out-of-scope", "2", input="x").returncode == 2
